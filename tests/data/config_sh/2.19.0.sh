#!/bin/bash

# tegra or non-tegra
riva_target_gpu_family="non-tegra"
# orin or xavier
riva_tegra_platform="orin"

service_enabled_asr=true
service_enabled_nlp=true
service_enabled_tts=true
service_enabled_nmt=false

declare -A asr_models_languages_map
asr_models_languages_map["conformer"]="ar-AR en-US en-GB de-DE es-ES es-US fr-FR hi-IN it-IT ja-JP ru-RU ko-KR pt-BR zh-CN nl-NL nl-BE"
asr_models_languages_map["conformer_xl"]="en-US"
asr_models_languages_map["conformer_unified"]="de-DE ja-JP zh-CN"
asr_models_languages_map["conformer_ml_cs"]="es-en-US"
asr_models_languages_map["parakeet_1.1b"]="en-US"
asr_models_languages_map["parakeet_1.1b_unified_ml_cs_universal"]="multi"
asr_models_languages_map["parakeet-rnnt_1.1b"]="en-US"
asr_models_languages_map["whisper_large"]="multi"
asr_models_languages_map["canary_1b"]="multi"

asr_acoustic_model=("conformer")
asr_language_code=("en-US")

# diarizer, silero or tele
asr_accessory_model=("")

use_asr_greedy_decoder=false
use_asr_streaming_throughput_mode=false
deploy_offline_diarizer=false

declare -A tts_models_languages_map
tts_models_languages_map["fastpitch_hifigan"]="en-US es-ES es-US it-IT de-DE zh-CN"
tts_models_languages_map["magpie"]="multi"
tts_models_languages_map["pflow_hifigan"]="en-US"

tts_model=("fastpitch_hifigan")
tts_language_code=("en-US")

nmt_remote_asr_service=0.0.0.0:50051
nmt_remote_tts_service=0.0.0.0:50051

# Enterprise
# RIVA_API_KEY=<key>
# RIVA_EULA=accept

gpus_to_use="device=0"
MODEL_DEPLOY_KEY="tlt_encode"

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
riva_ngc_image_version="2.19.0"
riva_ngc_model_version="2.19.0"

where="$riva_ngc_org/$riva_ngc_team"
at=$riva_ngc_model_version
built="${at}-${riva_target_gpu_family}-$riva_tegra_platform"

### recognition

models_asr=()

for code in ${asr_language_code[@]}; do
    if [[ $riva_target_gpu_family == "tegra" ]]; then
      if [[ ${asr_acoustic_model} == "conformer_xl" || \
            ${asr_acoustic_model} == *"parakeet-rnnt"* || \
            ${asr_acoustic_model} == *"canary"* || \
            ${asr_acoustic_model} == *"whisper"* ]]; then
        echo "not on $riva_target_gpu_family: ${asr_acoustic_model}"
        exit 1
      fi
      if [[ ${asr_accessory_model} != "" || ${use_asr_greedy_decoder} == "true" ]]; then
        echo "nothing of that kind on $riva_target_gpu_family"
	exit 1
      fi
    fi

    offered=(${asr_models_languages_map[${asr_acoustic_model}]})
    if [[ ${#offered[@]} == 0 ]]; then
      echo "no model is called ${asr_acoustic_model}"
      exit 1
    else
      there=0
      for one in "${offered[@]}"; do
        if [[ ${one} == ${code} ]]; then
          there=1
          break
        fi
      done
      if [[ $there == 0 ]]; then
        echo "${asr_acoustic_model} has no ${code}"
        exit 1
      fi
    fi

    name=${asr_acoustic_model//./-}
    part="_${code//-/_}"
    part=${part,,}
    if [[ ${part} == "_multi" ]]; then
      part=""
    fi

    accessory=""
    if [[ ${asr_accessory_model} != "" ]]; then
      if [[ ${asr_acoustic_model} != "parakeet_1.1b" ]]; then
        echo "no archive of ${asr_acoustic_model} has ${asr_accessory_model}"
        exit 1
      fi
      accessory="_${asr_accessory_model}"
    fi

    decoder=""
    if [[ ${use_asr_greedy_decoder} == "true" || \
          ${asr_acoustic_model} == "parakeet_1.1b_unified_ml_cs_universal" || \
          ${asr_acoustic_model} == "parakeet-rnnt_1.1b" ]]; then
      decoder="_gre"
    fi

    mode=""
    if [[ ${use_asr_streaming_throughput_mode} == "true" ]]; then
      mode="_thr"
    fi

    if [[ $riva_target_gpu_family == "tegra" ]]; then
        models_asr+=(
            "${where}/models_asr_${name}${part}_str:${built}"
        )
        if [[ ${deploy_offline_diarizer} == "true" ]]; then
          models_asr+=(
              ### built on the device
              "${where}/rmir_asr_${name}${part}_ofl${decoder}:$at"
              "${where}/rmir_diarizer_offline:$at"
          )
        fi
    else
      if [[ ${asr_acoustic_model} != *"whisper"* && ${asr_acoustic_model} != "parakeet-rnnt_1.1b" && ${asr_acoustic_model} != *"canary"* ]]; then
        models_asr+=(
            "${where}/rmir_asr_${name}${part}_str${mode}${decoder}${accessory}:$at"
        )
      fi
      if [[ ${asr_acoustic_model} == *"whisper"* || ${asr_acoustic_model} == *"canary"* ]]; then
        models_asr+=(
          "${where}/rmir_asr_${name}_ofl:$at"
        )
      else
        if [[ ${asr_accessory_model} == "diarizer" ]]; then
          models_asr+=( "${where}/rmir_asr_${name}${part}_ofl${decoder}:$at" )
        else
          models_asr+=( "${where}/rmir_asr_${name}${part}_ofl${decoder}${accessory}:$at" )
        fi
	if [[ ${deploy_offline_diarizer} == "true" ]]; then
          models_asr+=(
	    "${where}/rmir_diarizer_offline:$at"
          )
	fi
      fi
    fi

    ### punctuation
    if [[ ${asr_acoustic_model} != *"unified"* && ${asr_acoustic_model} != *"whisper"* && ${asr_acoustic_model} != *"canary"* ]]; then
      first=$(echo $part | cut -d "_" -f 2)
      last=${part##*_}
      part="_${first}_${last}"
      if [[ $riva_target_gpu_family == "tegra" ]]; then
        if [[ "$code" == "en-US" ]]; then
          models_asr+=(
          #  "${where}/models_nlp_punctuation_bert_large${part}:${built}"
          )
	fi
        models_asr+=(
          "${where}/models_nlp_punctuation_bert_base${part}:${built}"
        )
      else
        models_asr+=(
          "${where}/rmir_nlp_punctuation_bert_base${part}:$at"
        )
      fi
    fi
done

### language

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

### synthesis

models_tts=()

for code in ${tts_language_code[@]}; do
  offered=(${tts_models_languages_map[${tts_model}]})
  if [[ ${#offered[@]} == 0 ]]; then
      echo "no voice is called ${tts_model}"
      exit 1
  fi

  part="_${code//-/_}"
  part=${part,,}
  if [[ ${part} == "_multi" ]]; then
    part="_multilingual"
  fi

  if [[ $riva_target_gpu_family == "tegra" ]]; then
    kind="models"; of=$built
  else
    kind="rmir"; of=$at
  fi
  if [[ ${code} == "multi" || ${code} == "en-US" || ${code} == "zh-CN" || ${code} == "es-US" ]]; then
    if [[ ${tts_model} == "pflow_hifigan" ]]; then
      models_tts+=(
        "gjaugwraudqz/rmir_tts_${tts_model}${part}_ipa:$at"
      )
    else
      models_tts+=( "${where}/${kind}_tts_${tts_model}${part}_ipa:$of" )
    fi
  else
    if [[ ${code} != "de-DE" ]]; then
      models_tts+=( "${where}/${kind}_tts_${tts_model}${part}_f_ipa:$of" )
    fi
    models_tts+=( "${where}/${kind}_tts_${tts_model}${part}_m_ipa:$of" )
  fi
done

### translation

models_nmt=(
  #"${where}/rmir_megatronnmt_any_en_500m:$at"
  #"${where}/rmir_nmt_megatron_1b_en_any:$at"
  "${where}/rmir_nmt_megatron_1b_any_any:$at"
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
ssl_use_mutual_auth=false

image_speech_api="nvcr.io/${NGC_TARGET}/riva-speech:$riva_ngc_image_version"
if [[ $riva_target_gpu_family == "tegra" ]]; then
    image_speech_api+=-l4t-aarch64
fi

# containers
riva_daemon_speech="riva-speech"
if [[ $riva_target_gpu_family != "tegra" ]]; then
    riva_daemon_client="riva-client"
fi
