#!/bin/sh
# Prove that the tarball of the commit that is checked out is one that others would install (docs/releasing.md); needs what
# `tools/setup.sh test 2.21 release` installs. Name checks to make only those.
# It ends with 0 when all passed, 1 when one failed, 3 when none failed but something could not be looked at.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
all="contents sanity-2.19 sanity-2.21 importer nodes signature audit"
logs=$root/build/release-check
PATH=$root/.venv/bin:/usr/sbin:/sbin:$PATH
# All Pythons that are here, for what ansible-test does with each of them.
for folder in "$HOME"/.pyenv/versions/3.*/bin; do
    [ ! -d "$folder" ] || PATH=$PATH:$folder
done
LC_ALL=C.UTF-8
ANSIBLE_NOCOLOR=1
export PATH LC_ALL ANSIBLE_NOCOLOR
could_not_look=3

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$logs"

# The tarball, and what a user has after the installation.
build() {
    git -C "$root" archive --format=tar HEAD | { mkdir -p "$scratch/commit" && tar -x -C "$scratch/commit"; }
    ansible-galaxy collection build --output-path "$scratch" "$scratch/commit"
    ANSIBLE_COLLECTIONS_PATH=$scratch ansible-galaxy collection install --offline --no-deps -p "$scratch" "$scratch"/*.tar.gz
    tree=$scratch/ansible_collections/ringrift/recovery
}

# The same from the checkout: nothing that was forgotten to commit, nothing that lies about.
check_contents() {
    ansible-galaxy collection build --output-path "$scratch/checkout" .
    python - "$scratch"/*.tar.gz "$scratch"/checkout/*.tar.gz <<'EOF'
import json, sys, tarfile

commit, checkout = (
    {entry["name"]: entry["chksum_sha256"] for entry in json.load(tarfile.open(path).extractfile("FILES.json"))["files"]}
    for path in sys.argv[1:]
)
other = sorted(name for name in commit.keys() | checkout.keys() if commit.get(name) != checkout.get(name))
if other:
    sys.exit("The checkout is not the commit. Commit or remove, then check again: " + ", ".join(other))
print(f"{len(commit)} files, with the same contents in both builds")
EOF
}

build >"$logs/build.log" 2>&1 || {
    cat "$logs/build.log"
    echo "release-check: there is no tarball, so nothing was checked. It must be a git checkout with a commit."
    exit 1
}
check() {
    case $1 in
        contents) check_contents ;;
        sanity-2.19) tools/sanity.sh .venv "$tree" ;;
        sanity-2.21)
            [ -x .venv-2.21/bin/ansible-test ] || return "$could_not_look"
            tools/sanity.sh .venv-2.21 "$tree"
            ;;
        importer) tools/importer.sh "$scratch"/*.tar.gz ;;
        nodes) python -m tests.node_pythons ;;
        signature)
            command -v gpg >/dev/null || return "$could_not_look"
            python -m pytest -q -p no:cacheprovider tests/integration/test_signed_release.py
            ;;
        audit) .venv-release/bin/python tools/audit.py ;;
        *)
            echo "There is no check $1. Take some of: $all"
            return 1
            ;;
    esac
}

result=0
# shellcheck disable=SC2086 # it is a list of names
[ $# -gt 0 ] || set -- $all
for name in "$@"; do
    begin=$(date +%s)
    code=0
    # Apart, as a check ends at its first error only where nobody asks for its outcome.
    set +e
    (set -e; check "$name") >"$logs/$name.log" 2>&1 </dev/null
    code=$?
    set -e
    took="$(($(date +%s) - begin)) s, ${logs#"$root"/}/$name.log"
    case $code in
        0) echo "release-check: $name: passed; $took" ;;
        "$could_not_look")
            tail -n 3 "$logs/$name.log"
            echo "release-check: $name: could not look, so nothing is proven; $took"
            [ "$result" -ne 0 ] || result=$could_not_look
            ;;
        *)
            grep -E '^(ERROR|FATAL|WARNING|FAILED)' "$logs/$name.log" || tail -n 20 "$logs/$name.log"
            echo "release-check: $name: failed; $took"
            result=1
            ;;
    esac
done
exit $result
