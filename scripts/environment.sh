# Sourced by the other scripts: creates the virtual environment if it is missing or outdated.
# Needs bash, and Python >= 3.11 with its venv module; MYLLM_PYTHON can name the Python to use.

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

# What the environment depends on: a change of this output rebuilds it. Of the Python version only
# 3.x counts, which is also in the path of its packages; a Python that is gone has no version.
_wanted() {
    local version
    version="$("$venv/bin/python" -V 2>/dev/null)" || version=none
    echo "$1 $root ${version%.*}"
    cat "$root/pyproject.toml" "$root/requirements.lock" "$root/requirements-test.lock"
}

# ensure_environment [test]: with the test extras, or at least MyLLM's own dependencies.
ensure_environment() {
    local kind="${1:-run}" stamp="$venv/made-from"
    _wanted test | cmp -s - "$stamp" && return
    [ "$kind" = run ] && _wanted run | cmp -s - "$stamp" && return
    (
        # Of two first starts at once, the second waits and finds the work done.
        if command -v flock >/dev/null; then
            exec 9<>"$root/.venv.lock"  # it contains the pid of its holder
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
    # The environment's scripts contain its path, so it is useless after a move or without its
    # Python.
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
