#!/usr/bin/env bash
# Step 6: convert a checkpoint, build the archive with int8 weights and the language model, and put
# it in the place of the model that the distribution brings along.
#
#     recipes/english/package.sh work/english.nemo work/lm
#
# The folder of the language model holds model.bin and words.txt. Options after it go to riva-build,
# such as the weights that `language_model_tune` has found.
set -euo pipefail

checkpoint=$1 language=$2
shift 2
artifacts="$(dirname "${BASH_SOURCE[0]}")/../../quickstart/artifacts"
name=asr_english_en_us.rmir
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

nemo2riva "$checkpoint" --out "$work/english.riva"
riva-build speech_recognition --force "$work/$name" "$work/english.riva" \
    --name=english-en-US-asr --language_code=en-US --offline --streaming=True --chunk_size=0.56 \
    --nn.weights=int8 --decoder_type=flashlight --decoder_fallback=greedy \
    --decoding_vocab="$language/words.txt" \
    --decoding_language_model_binary="$language/model.bin" "$@"
python - "$work/$name" "$artifacts" <<'PYTHON'
import hashlib, json, pathlib, shutil, sys

archive, folder = map(pathlib.Path, sys.argv[1:])
data = archive.read_bytes()
catalog = folder / "catalog.json"
table = json.loads(catalog.read_text())
(row,) = [row for row in table["artifacts"] if row["service"] == "asr"]
(folder / row["file"]).unlink(missing_ok=True)
row.update(model="english", name="asr_english_en_us", file=archive.name,
           size=len(data), sha256=hashlib.sha256(data).hexdigest())
catalog.write_text(json.dumps(table, indent=2) + "\n")
shutil.copyfile(archive, folder / archive.name)
print(f"{archive.name}: {len(data) / 1e6:.1f} MB of 16")
PYTHON
