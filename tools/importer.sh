#!/bin/sh
# What Galaxy runs on an upload, on a tarball: tools/importer.sh TARBALL; needs what `tools/setup.sh test release` installs.
# Galaxy only warns of what it finds; here a warning is a failure. With LINT=False it leaves out ansible-lint, for whoever ran that.
set -eu
: "${1:?usage: tools/importer.sh TARBALL}"
[ -f "$1" ] || { echo "importer: There is no file $1; make build makes one in build/." >&2; exit 2; }
tarball=$(readlink -f "$1")
cd "$(dirname "$0")/.."
root=$PWD
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/home"
# The collections that we depend on are those of the first environment.
ln -s "$(.venv/bin/python -c 'import ansible_collections; print(list(ansible_collections.__path__)[0])')" "$scratch"
sed "s/^RUN_ANSIBLE_LINT = .*/RUN_ANSIBLE_LINT = ${LINT:-True}/" tools/galaxy-importer.cfg >"$scratch/galaxy-importer.cfg"
cd "$scratch"
HOME=$scratch/home PATH=$root/.venv-release/bin:$PATH PYTHONPATH=$scratch GALAXY_IMPORTER_CONFIG=$scratch/galaxy-importer.cfg \
    python -m galaxy_importer.main "$tarball" >said 2>&1 || {
    cat said
    exit 1
}
cat said
! grep -E '^(WARNING|ERROR|CRITICAL)' said
