# tegra or non-tegra
riva_target_gpu_family="non-tegra"

# orin or xavier
riva_tegra_platform="orin"

service_enabled_asr=true
service_enabled_nlp=true
service_enabled_tts=true
service_enabled_nmt=false

# Enterprise
# RIVA_API_KEY=<key>
# RIVA_API_NGC_ORG=<organisation>
# RIVA_EULA=accept

language_code=("en-US" "zh-CN")
asr_acoustic_model=("conformer")

gpus_to_use="device=0"
MODEL_DEPLOY_KEY="tlt_encode"

# a volume's name, or an absolute path
riva_model_loc="riva-model-repo"

if [[ ${riva_target_gpu_family} == 'tegra' ]]
then
    riva_model_loc="`pwd`"/model_repository
fi

use_existing_rmirs=false

riva_speech_api_port="50051"

riva_ngc_org="nvidia"
riva_ngc_team="riva"
riva_ngc_image_version="2.12.1"
riva_ngc_model_version="2.12.0"

where="$riva_ngc_org/$riva_ngc_team"
at=$riva_ngc_model_version
built="${at}-${riva_target_gpu_family}-$riva_tegra_platform"

models_asr=()

for code in ${language_code[@]}; do
    part="${code/-/_}"
    part=${part,,}

    decoder=""
    if [[ ${asr_acoustic_model} == "conformer" ]]; then
      if [[ ${code} == "zh-CN" ]]; then
          decoder="_gre"
      fi
    fi

    if [[ ${asr_acoustic_model} == "conformer_xl" && ${code} != "en-US" ]]; then
      echo "conformer_xl is English"
      exit 1
    fi

    if [[ $riva_target_gpu_family  == "tegra" ]]; then
      models_asr+=(
          "${where}/models_asr_${asr_acoustic_model}_${part}_str:${built}"
      #    "${where}/rmir_asr_${asr_acoustic_model}_${part}_ofl${decoder}:$at"
      )
    else
      if [[ (${asr_acoustic_model} == "jasper" || \
            ${asr_acoustic_model} == "quartznet") && \
            ${code} != "en-US" ]]; then
        echo "both are English"
        exit 1
      fi

      models_asr+=(
          "${where}/rmir_asr_${asr_acoustic_model}_${part}_str${decoder}:$at"
      #    "${where}/rmir_asr_${asr_acoustic_model}_${part}_str_thr${decoder}:$at"
          "${where}/rmir_asr_${asr_acoustic_model}_${part}_ofl${decoder}:$at"
      )
    fi

    if [[ ${asr_acoustic_model} != "conformer_unified" ]]; then
      if [[ $riva_target_gpu_family == "tegra" ]]; then
        models_asr+=(
            "${where}/models_nlp_punctuation_bert_base_${part}:${built}"
        )
      else
        models_asr+=(
            "${where}/rmir_nlp_punctuation_bert_base_${part}:$at"
        )
      fi
    fi
done

### who speaks
models_asr+=(
#    "${where}/rmir_diarizer_offline:$at"
)

if [[ $riva_target_gpu_family == "tegra" ]]; then
  models_nlp=(
      "${where}/models_nlp_intent_slot_misty_bert_base:${built}"
  )
else
  models_nlp=(
      "${where}/rmir_nlp_punctuation_bert_base_en_us:$at"

      "${where}/rmir_nlp_named_entity_recognition_bert_base:$at"
  #    "${where}/rmir_nlp_question_answering_megatron:$at"
  )
fi

if [[ $riva_target_gpu_family == "tegra" ]]; then
  models_tts=(
      "${where}/models_tts_fastpitch_hifigan_en_us_ipa:${built}"
  )
else
  models_tts=(
      "${where}/rmir_tts_fastpitch_hifigan_en_us_ipa:$at"
      "${where}/rmir_tts_radtts_hifigan_en_us_ipa:$at"
  )
fi

models_nmt=(
  #"${where}/rmir_nmt_en_de_24x6:$at"
  #"${where}/rmir_megatronnmt_any_en_500m:$at"
)

NGC_TARGET=$riva_ngc_org
if [[ ! -z "$riva_ngc_team" ]]; then
  NGC_TARGET+=/"${riva_ngc_team}"
else
  team="\"\""
fi

# TLS
ssl_server_cert=""
ssl_server_key=""
ssl_root_cert=""

image_speech_api=nvcr.io/"$NGC_TARGET/riva-speech:${riva_ngc_image_version}"
image_init_speech=nvcr.io/"$NGC_TARGET/riva-speech:${riva_ngc_image_version}-servicemaker"

# containers
riva_daemon_speech="riva-speech"
if [[ $riva_target_gpu_family != "tegra" ]]; then
    riva_daemon_client="riva-client"
fi
