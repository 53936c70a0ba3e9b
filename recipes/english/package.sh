#!/usr/bin/env bash
# Step 7: convert a checkpoint, build the archive with int8 weights and the language model, and make
# it the model that the distribution brings along.
#
#     recipes/english/package.sh work/english.nemo work/lm
#
# The folder of the language model holds model.bin and words.txt. The weights are those that
# `language_model_tune` found for the checkpoint beside this file; options after the folder go to
# riva-build, such as other weights. Whole recordings are heard 11.2 s ahead, further than a stream
# may wait.
set -euo pipefail

checkpoint=$1 language=$2
shift 2
artifacts="$(dirname "${BASH_SOURCE[0]}")/../../quickstart/artifacts"
archive="$artifacts/asr_english_en_us.rmir"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

nemo2riva "$checkpoint" --out "$work/english.riva" --offline-context 280 139
riva-build speech_recognition --force "$archive" "$work/english.riva" \
    --name=english-en-US-asr --language_code=en-US --offline --streaming=True --chunk_size=0.56 \
    --leading_silence=0.48 --trailing_silence=0.3 --nn.weights=int8 --decoder_type=flashlight \
    --decoder_fallback=greedy --decoding_vocab="$language/words.txt" \
    --decoding_language_model_binary="$language/model.bin" --flashlight_decoder.lm_weight=0.85 \
    --flashlight_decoder.word_insertion_score=0.2 --flashlight_decoder.blank_penalty=0.3 \
    --flashlight_decoder.beam_size=256 --flashlight_decoder.beam_size_token=8 \
    --flashlight_decoder.beam_threshold=12 --flashlight_decoder.unk_score=-3 \
    --streaming.flashlight_decoder.lm_weight=1.05 \
    --streaming.flashlight_decoder.word_insertion_score=0.6 \
    --streaming.flashlight_decoder.blank_penalty=0.6 --streaming.flashlight_decoder.beam_size=64 \
    --streaming.flashlight_decoder.beam_threshold=8 "$@"
python - "$archive" "$artifacts/catalog.json" <<'PYTHON'
import hashlib, json, pathlib, sys

archive, catalog = map(pathlib.Path, sys.argv[1:])
data = archive.read_bytes()
table = json.loads(catalog.read_text())
(row,) = [row for row in table["artifacts"] if row["service"] == "asr"]
row.update(model="english", name=archive.stem, file=archive.name,
           size=len(data), sha256=hashlib.sha256(data).hexdigest())
catalog.write_text(json.dumps(table, indent=2) + "\n")
print(f"{archive.name}: {len(data) / 1e6:.1f} MB of 16")
PYTHON
