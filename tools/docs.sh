#!/bin/sh
# One site of all pages and of the documentation of every module, in build/docs/html; needs what `tools/setup.sh docs` installs.
# Nothing is fetched, and every warning is an error.
set -eu
cd "$(dirname "$0")/.."
umask 022
PATH=$PWD/.venv-docs/bin:$PATH
ANSIBLE_COLLECTIONS_PATH=$PWD/playbooks/collections
DOCS_VERSION=$(sed -n 's/^version: //p' galaxy.yml)
export PATH ANSIBLE_COLLECTIONS_PATH DOCS_VERSION

source=build/docs/source
rm -rf build/docs
mkdir -p $source/reference $source/_extra
# Where they are in the repository, so that the links between them lead somewhere; the last ones are linked to.
cp --parents ./*.md benchmarks/README.md docs/*.md docs/causes/*.md docs/images/*.png roles/*/README.md \
    docs/*.json LICENSE plugins/modules/node_evidence.py $source
cp --parents docs/images/*.png $source/_extra
{
    cat README.md tools/docs/contents.md
    # A page that the contents do not name is not lost.
    # shellcheck disable=SC2016 # it is Markdown
printf '\n```{toctree}\n:hidden:\n:caption: More\n\n'
    for page in docs/*.md; do
        grep -qx "${page%.md}" tools/docs/contents.md || printf '%s\n' "${page%.md}"
    done
    printf '```\n'
} >$source/index.md
# shellcheck disable=SC2016 # it is Markdown
printf '\n```{toctree}\n:hidden:\n:glob:\n\ncauses/*\n```\n' >>$source/docs/diagnosis.md
# shellcheck disable=SC2016 # it is Markdown
printf '# Roles\n\n```{toctree}\n:glob:\n\n*/README\n```\n' >$source/roles/index.md
# README.md is the front page here.
find $source -name '*.md' -exec sed -i -E 's#\]\(((\.\./)*)README\.md([)\#])#](\1index.md\3#g' {} +
antsibull-docs collection --use-current --squash-hierarchy --fail-on-error --dest-dir $source/reference ringrift.recovery
# The theme shows the contents of a page beside it.
find $source/reference -name '*.rst' -exec sed -i '/^\.\. contents::/,/^$/d' {} +
sphinx-build --quiet --fail-on-warning --keep-going --builder html --conf-dir tools/docs --doctree-dir build/docs/doctrees \
    $source build/docs/html
printf 'docs: %s/build/docs/html/index.html\n' "$PWD"
