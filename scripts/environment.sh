# Sourced by the other scripts: makes the virtual environment when it is missing or stale.
# Needs bash, and Python >= 3.11 with its venv module; MYLLM_PYTHON names one to use.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$root/.venv"

_fail() {
    echo "error: $*" >&2
    exit 1
}

_python() {
    local candidate
    for candidate in ${MYLLM_PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    _fail "Python 3.11 or newer is needed; install it, or name one in MYLLM_PYTHON"
}

# What the environment was made from: when this changes, it is made again. Of the Python only
# 3.x counts, which also names the folder of its packages; one that is gone has no version.
_wanted() {
    local version
    version="$("$venv/bin/python" -V 2>/dev/null)" || version=none
    echo "$1 $root ${version%.*}"
    cat "$root/pyproject.toml" "$root/requirements.lock" "$root/requirements-test.lock"
}

# ensure_environment [test]: with the test extras, or at least what MyLLM itself needs.
ensure_environment() {
    local kind="${1:-run}" stamp="$venv/made-from"
    _wanted test | cmp -s - "$stamp" && return
    [ "$kind" = run ] && _wanted run | cmp -s - "$stamp" && return
    (
        # Two first starts at once: the second one waits and finds it done.
        if command -v flock >/dev/null; then
            exec 9<>"$root/.venv.lock"  # its content is the process that holds it
            if ! flock -n 9; then
                echo "Another process (pid $(cat "$root/.venv.lock")) sets up $venv;" \
                    "waiting for it ..." >&2
                flock 9
            fi
            echo "$BASHPID" >"$root/.venv.lock"
            _wanted "$kind" | cmp -s - "$stamp" && exit
        fi
        _make_environment "$kind" "$stamp"
    )
}

_make_environment() {
    local kind="$1" stamp="$2" lock="$root/requirements.lock" python
    [ "$kind" = test ] && lock="$root/requirements-test.lock"
    python="$(_python)"
    echo "Setting up $venv (once, or when the dependencies change) ..." >&2
    rm -f "$stamp"
    # Its scripts begin with its path, so one that was moved, or lost its Python, is of no use.
    if ! grep -qsF "$venv/bin/" "$venv/bin/pip" ||
        ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
        rm -rf "$venv"
        "$python" -m venv "$venv" >&2 ||
            _fail "cannot make a virtual environment; on Debian: apt install python3-venv"
    fi
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --require-hashes -r "$lock" >&2 || _fail "installing the dependencies failed, see above"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --no-deps -e "$root" >&2 || _fail "installing MyLLM failed, see above"
    _wanted "$kind" >"$stamp.new"
    mv "$stamp.new" "$stamp"
}
