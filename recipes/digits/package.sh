#!/usr/bin/env bash
# Step 5: convert a checkpoint and build the archive that the distribution brings along.
#
#     recipes/digits/package.sh work/digits.nemo
set -euo pipefail

artifacts="$(dirname "${BASH_SOURCE[0]}")/../../quickstart/artifacts"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

nemo2riva "$1" --out "$work/digits.riva"
riva-build speech_recognition --force "$artifacts/asr_digits_en_us.rmir" "$work/digits.riva" \
    --name=digits-en-US-asr --language_code=en-US --offline --streaming=True
python - "$artifacts" <<'PYTHON'
import hashlib, json, pathlib, sys

folder = pathlib.Path(sys.argv[1])
catalog = folder / "catalog.json"
table = json.loads(catalog.read_text())
for row in table["artifacts"]:
    data = (folder / row["file"]).read_bytes()
    row["size"], row["sha256"] = len(data), hashlib.sha256(data).hexdigest()
catalog.write_text(json.dumps(table, indent=2) + "\n")
PYTHON
