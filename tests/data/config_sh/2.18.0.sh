# tegra or non-tegra
riva_target_gpu_family="non-tegra"

# orin or xavier
riva_tegra_platform="orin"

service_enabled_asr=true
service_enabled_nlp=true
service_enabled_tts=true
service_enabled_nmt=false

asr_language_code=("en-US")
# conformer, parakeet, parakeet-rnnt, whisper, distil_whisper or canary
asr_acoustic_model=("conformer")
asr_acoustic_model_variant=("")
use_asr_greedy_decoder=false
tts_language_code=("en-US")

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
riva_speech_api_http_port="50000"

riva_ngc_org="nvidia"
riva_ngc_team="riva"
riva_ngc_image_version="2.18.0"
riva_ngc_model_version="2.18.0"

where="$riva_ngc_org/$riva_ngc_team"
at=$riva_ngc_model_version
built="${at}-${riva_target_gpu_family}-$riva_tegra_platform"

models_asr=()

for code in ${asr_language_code[@]}; do
    part="${code//-/_}"
    part=${part,,}

    decoder=""
    if [[ ${use_asr_greedy_decoder} = true ||
          ( ${asr_acoustic_model_variant} == "1.1b_unified_ml_cs_universal" && ${asr_acoustic_model} == "parakeet" ) ||
          ( ${code} == "en-US" && ${asr_acoustic_model_variant} == "1.1b" && ${asr_acoustic_model} == "parakeet-rnnt" ) ]]; then
      decoder="_gre"
    fi
    variant=""
    if [[ "$asr_acoustic_model_variant" != "" ]]; then
      variant="_${asr_acoustic_model_variant}"
      variant=${variant//./-}
    fi

    if [[ $riva_target_gpu_family  == "tegra" ]]; then
        models_asr+=(
          "${where}/models_asr_${asr_acoustic_model}${variant}_${part}_str:${built}"
        )
    else
      if [[ ${asr_acoustic_model_variant} == "1.1b_unified_ml_cs_universal" || ${asr_acoustic_model_variant} == "1.1b_unified_ml_cs_concat" ]]; then
        models_asr+=(
                "${where}/rmir_asr_${asr_acoustic_model}${variant}_str${decoder}:$at"
        )
      elif [[ ${asr_acoustic_model} != *"whisper" && ${asr_acoustic_model} != "parakeet-rnnt" && ${asr_acoustic_model} != "canary" ]]; then
        models_asr+=(
                "${where}/rmir_asr_${asr_acoustic_model}${variant}_${part}_str${decoder}:$at"
        )
      fi

      if [[ ${asr_acoustic_model} == *"whisper" || ${asr_acoustic_model} == "canary" ]]; then
        models_asr+=(
          "${where}/rmir_asr_${asr_acoustic_model}${variant}_ofl:$at"
        )
      elif [[ ${asr_acoustic_model_variant} == "1.1b_unified_ml_cs_universal" || ${asr_acoustic_model_variant} == "1.1b_unified_ml_cs_concat" ]]; then
        models_asr+=(
          "${where}/rmir_asr_${asr_acoustic_model}${variant}_ofl${decoder}:$at"
        )
      else
        models_asr+=(
          "${where}/rmir_asr_${asr_acoustic_model}${variant}_${part}_ofl${decoder}:$at"
        )
      fi
    fi

    if [[ ${variant} != *"_unified"* && ${asr_acoustic_model} != *"whisper" && ${asr_acoustic_model} != "canary" ]]; then
      first=$(echo $part | cut -d "_" -f 1)
      last=${part##*_}
      part=${first}_${last}
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
if [[ $riva_target_gpu_family == "tegra" ]]; then
  models_nlp=(
      "${where}/models_nlp_punctuation_bert_base_en_us:${built}"
  )
else
  models_nlp=(
      "${where}/rmir_nlp_punctuation_bert_base_en_us:$at"
  #    "${where}/rmir_nlp_punctuation_bert_large_en_us:$at"
  )
fi

models_tts=()

for code in ${tts_language_code[@]}; do
  part="${code//-/_}"
  part=${part,,}
  case "$riva_target_gpu_family" in
    tegra) kind=models; suffix="-${riva_target_gpu_family}-${riva_tegra_platform}" ;;
    *)     kind=rmir; suffix="" ;;
  esac
  if [[ ${code} == "en-US" || ${code} == "zh-CN" || ${code} == "es-US" ]]; then
    models_tts+=(
        "${where}/${kind}_tts_fastpitch_hifigan_${part}_ipa:$at${suffix}"
    )
  else
    if [[ ${code} != "de-DE" ]]; then
      models_tts+=(
          "${where}/${kind}_tts_fastpitch_hifigan_${part}_f_ipa:$at${suffix}"
      )
    fi
    models_tts+=(
        "${where}/${kind}_tts_fastpitch_hifigan_${part}_m_ipa:$at${suffix}"
    )
  fi
done

models_nmt=(
  #"${where}/rmir_nmt_megatron_1b_any_any:$at"

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

if [[ $riva_target_gpu_family == "tegra" ]]; then
  image_speech_api=nvcr.io/"$NGC_TARGET/riva-speech:${riva_ngc_image_version}-l4t-aarch64"
else
  image_speech_api=nvcr.io/"$NGC_TARGET/riva-speech:${riva_ngc_image_version}"
fi

# containers
riva_daemon_speech="riva-speech"
if [[ $riva_target_gpu_family != "tegra" ]]; then
    riva_daemon_client="riva-client"
fi
