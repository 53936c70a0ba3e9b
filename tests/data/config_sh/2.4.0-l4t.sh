# amd64 or arm64
riva_target_gpu_family="tegra"

# empty or xavier
riva_arm64_legacy_platform=""

service_enabled_asr=true
service_enabled_nlp=true
service_enabled_tts=true

# Enterprise
# RIVA_API_KEY=<key>
# RIVA_API_NGC_ORG=<organisation>
# RIVA_EULA=accept

# one or several, with blanks between them
language_code=("en-US")

# conformer, citrinet_1024, citrinet_256, jasper, quartznet
asr_acoustic_model=("citrinet_1024")

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
riva_ngc_image_version="2.4.0"
riva_ngc_model_version="2.4.0"

where="$riva_ngc_org/$riva_ngc_team"
at=$riva_ngc_model_version
built=$at-arm64$riva_arm64_legacy_platform

### recognition

models_asr=()

for code in ${language_code[@]}; do
    part="${code/-/_}"
    part=${part,,}
    if [[ $riva_target_gpu_family  == "tegra" ]]; then

      if [[ ${asr_acoustic_model} == "jasper" || \
            ${asr_acoustic_model} == "quartznet" ]]; then
          echo "Neither Jasper nor Quartznet on arm64"
          exit 1
      fi
      models_asr+=(
          "${where}/models_asr_${asr_acoustic_model}_${part}_str:${built}"
      )
    else
      models_asr+=(
      ### streaming
          "${where}/rmir_asr_${asr_acoustic_model}_${part}_str:$at"
      )
    fi

    ### punctuation
    if [[ "${code}"  == "en-US" || "${code}" == "de-DE" ]]; then
      if [[ $riva_target_gpu_family == "tegra" ]]; then
        models_asr+=(
            "${where}/models_nlp_punctuation_bert_base_${part}:${built}"
        )
      fi
    fi

done

### language

if [[ $riva_target_gpu_family == "tegra" ]]; then
  models_nlp=(
      "${where}/models_nlp_intent_slot_misty_bert_base:${built}"
  #    "${where}/models_nlp_intent_slot_misty_distilbert:${built}"
  )
fi

### synthesis

if [[ $riva_target_gpu_family == "tegra" ]]; then
  models_tts=(
     "${where}/models_tts_fastpitch_hifigan_en_us_female_1:${built}"
#    "${where}/models_tts_fastpitch_hifigan_en_us_male_1:${built}"
  )
fi

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

if [[ $riva_target_gpu_family == "tegra" ]]; then
  image_client=""
  image_speech_api=nvcr.io/"$NGC_TARGET/riva-speech:${riva_ngc_image_version}-l4t-aarch64-server"
  image_init_speech=nvcr.io/"$NGC_TARGET/riva-speech:${riva_ngc_image_version}-l4t-aarch64-servicemaker"
else
  image_client=nvcr.io/"$NGC_TARGET/riva-speech-client:${riva_ngc_image_version}"
  image_speech_api=nvcr.io/"$NGC_TARGET/riva-speech:${riva_ngc_image_version}-server"
  image_init_speech=nvcr.io/"$NGC_TARGET/riva-speech:${riva_ngc_image_version}-servicemaker"
fi

# containers
riva_daemon_speech="riva-speech"
if [[ $riva_target_gpu_family != "tegra" ]]; then
    riva_daemon_client="riva-client"
fi
