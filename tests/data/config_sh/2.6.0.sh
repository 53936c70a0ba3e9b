# amd64 or arm64
riva_target_gpu_family="amd64"
riva_arm64_legacy_platform=""

#service_enabled_asr=true
service_enabled_nlp=true
#service_enabled_tts=true

language_code=("en-US")
asr_acoustic_model=("conformer")
gpus_to_use="device=0"
#MODEL_DEPLOY_KEY="tlt_encode"
MODEL_DEPLOY_KEY=""

# edited by its owner: a folder beside this file
HERE="$( cd "$( dirname "$0" )" && pwd )"
THERE=$( echo $HERE )"/exported"
riva_model_loc=$( echo $THERE)
#riva_model_loc="riva-model-repo"

if [[ ${riva_target_gpu_family} == 'tegra' ]]
then
    riva_model_loc="`pwd`"/model_repository
fi

use_existing_rmirs=true
riva_speech_api_port="50051"

riva_ngc_org="nvidia"
riva_ngc_team="riva"
riva_ngc_image_version="2.6.0"
riva_ngc_model_version="2.6.0"

where="$riva_ngc_org/$riva_ngc_team"
at=$riva_ngc_model_version
built=$at-arm64$riva_arm64_legacy_platform

models_asr=()
for code in ${language_code[@]}; do
    part="${code/-/_}"
    part=${part,,}
    decoder=""
    if [[ ${asr_acoustic_model} == "conformer" && ${code} == "zh-CN" ]]; then
      decoder="_gre"
    fi
    models_asr+=(
        "${where}/rmir_asr_${asr_acoustic_model}_${part}_str${decoder}:$at"
        "${where}/rmir_asr_${asr_acoustic_model}_${part}_ofl${decoder}:$at"
    )
done

models_nlp=(
    #  "${where}/rmir_nlp_punctuation_bert_base_en_us:$at"
      "${where}/rmir_nlp_question_answering_bert_base:$at"
)
models_tts=( "${where}/rmir_tts_fastpitch_hifigan_en_us:$at" )

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
