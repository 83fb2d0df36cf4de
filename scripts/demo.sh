#!/usr/bin/env bash
# The whole path over this repository's own files: builds tidemill, lets its
# laptop mode take the SHA-256 of each file, and checks every result.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

CGO_ENABLED=0 go build -trimpath -o bin/tidemill ./cmd/tidemill

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/in"
if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
	git ls-files -z
else # a source archive
	find . -type f -not -path './bin/*' -print0
fi | tar --create --null --files-from=- --file=- | tar --extract --file=- --directory="$work/in"

echo "tidemill local --once --in . --out OUT -- sh -c 'sha256sum ...', 4 workers at most"
bin/tidemill local --once --max-workers 4 --in "$work/in" --out "$work/out" -- \
	sh -c 'sha256sum < "$TIDEMILL_INPUT" > "$TIDEMILL_OUTPUT/sha256"'

files=0 wrong=0
while IFS= read -r -d '' file; do
	files=$((files + 1))
	if ! sha256sum < "$work/in/$file" | cmp --silent - "$work/out/$file/sha256"; then
		wrong=$((wrong + 1))
		echo "wrong or missing result: $file" >&2
	fi
done < <(cd "$work/in" && find . -type f -print0)
echo "checked $files results against the files: $((files - wrong)) right, $wrong wrong"
[[ $files -gt 0 && $wrong -eq 0 ]]
