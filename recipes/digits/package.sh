#!/usr/bin/env bash
# Step 5: convert a checkpoint and build the archive that tests deploy.
#
#     recipes/digits/package.sh work/digits.nemo
set -euo pipefail

data="$(dirname "${BASH_SOURCE[0]}")/../../tests/data/digits"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

nemo2riva "$1" --out "$work/digits.riva"
riva-build speech_recognition --force "$data/digits.rmir" "$work/digits.riva" \
    --name=digits-en-US-asr --language_code=en-US --offline --streaming=True
