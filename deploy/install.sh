#!/bin/bash
# Installs, upgrades and removes Sessionwatch on Debian 12 and 13. `install.sh --help` says how.
#
# Whatever changes the machine goes through `run`, which prints it first; with --dry-run it
# is printed and not done. What is there already is left alone, so it can be run again at any time.
set -Eeuo pipefail
umask 022
# The caller's environment must not lead elsewhere: PGHOST to the database of another machine,
# PATH and CDPATH into other folders, PYTHONPATH into other modules.
unset CDPATH "${!PG@}" "${!PYTHON@}"
export PATH=/usr/sbin:/usr/bin:/sbin:/bin

readonly PREFIX=/opt/sessionwatch
readonly CURRENT=$PREFIX/current
readonly BUILD=$PREFIX/.build
readonly COMMAND=/usr/local/bin/sessionwatch
readonly CONFIG_FOLDER=/etc/sessionwatch
readonly CONFIG=$CONFIG_FOLDER/sessionwatch.toml
readonly CREDENTIALS=$CONFIG_FOLDER/credentials
readonly STATE=/var/lib/sessionwatch
readonly UNIT=/etc/systemd/system/sessionwatch.service
readonly SERVICE=sessionwatch # the system's user, the login role, and the database
readonly PYTHON=/usr/bin/python3
readonly USAGE_ERROR=2 TRY_AGAIN=75 UNSUPPORTED=78

usage() {
    cat <<'TEXT'
Usage: install.sh [--dry-run] [--no-database] [install | upgrade | uninstall [--purge]]

Installs Sessionwatch on Debian 12 or 13 as a service of systemd. To be run as root.

  install      (default) the packages it needs, the user sessionwatch, the program under
               /opt/sessionwatch with pinned and hashed dependencies, a database of that name
               on this machine with its roles and schema, /etc/sessionwatch with a first
               configuration, the service. Never overwrites a configuration. May be run again.
  upgrade      the same for an installation that is there, but installs no Postgres. Stops the
               service while the schema is changed; if that fails, the old program stays.
  uninstall    removes the program and the service; configuration, user and database stay.

  --no-database  the database is elsewhere: touch none. Its owner runs `sessionwatch schema apply`.
  --purge        with uninstall: also configuration, credentials, user, and the database with
                 the session sets in it, which nobody else may have.
  --dry-run      print each command, one per line, and change nothing.
  --help         this page.

Exit codes: 0 done, 2 wrong usage, 75 a command failed (run it again), 78 no such system.

Example, from a clone or an unpacked release:

  deploy/install.sh --dry-run
  deploy/install.sh
  editor /etc/sessionwatch/sessionwatch.toml
  systemctl start sessionwatch
TEXT
}

# --- saying and doing ---------------------------------------------------------------------------

dry_run=""
left_out=()

# fail CODE WHAT REMEDY
fail() {
    trap - ERR
    printf 'error: %s\nremedy: %s\n' "$2" "$3" >&2
    exit "$1"
}

say() { printf '# %s\n' "$*"; }

# The words of a command as one would type them.
quoted() {
    local word line=""
    for word in "$@"; do
        if [[ $word =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]]; then line+=" $word"; else line+=" ${word@Q}"; fi
    done
    printf '%s' "${line# }"
}

run() {
    last=$(quoted "$@")
    printf '%s\n' "$last"
    if [ -z "$dry_run" ]; then "$@"; fi
}

last=""
trap 'fail $TRY_AGAIN "this failed: ${last:-line $LINENO}" \
    "see what it says above, mend that and run the same again: it goes on where it was"' ERR

systemd_runs() { [ -d /run/systemd/system ]; }

is_active() {
    systemd_runs && [[ $(systemctl is-active $SERVICE || true) =~ ^(active|activating|reloading)$ ]]
}

# --- what is to be done -------------------------------------------------------------------------

verb=""
database=yes
purge=""

read_arguments() {
    local argument
    for argument in "$@"; do
        case $argument in
            --help | -h) usage && exit 0 ;;
            --dry-run) dry_run=yes ;;
            --no-database) database="" ;;
            --purge) purge=yes ;;
            install | upgrade | uninstall)
                if [ -n "$verb" ]; then
                    fail $USAGE_ERROR "both $verb and $argument were given" "give one of them"
                fi
                verb=$argument
                ;;
            *) fail $USAGE_ERROR "${argument@Q} is not known" "see install.sh --help" ;;
        esac
    done
    verb=${verb:-install}
    if [ -n "$purge" ] && [ "$verb" != uninstall ]; then
        fail $USAGE_ERROR "--purge was given with $verb" "it belongs to uninstall alone"
    fi
}

from_os_release() { sed -n "s/^$1=\"\{0,1\}\([^\"]*\)\"\{0,1\}$/\1/p" /etc/os-release; }

# Sets `release`: 12 or 13.
check_system() {
    local id=""
    release=""
    if [ -r /etc/os-release ]; then
        id=$(from_os_release ID)
        release=$(from_os_release VERSION_ID)
    fi
    if [ "$id" != debian ] || [[ ! $release =~ ^(12|13)$ ]]; then
        fail $UNSUPPORTED "this is ${id:-an unknown system} ${release}, not Debian 12 or 13" \
            "follow \"Run it\" in the README, and deploy/systemd/sessionwatch.service"
    fi
    if [ "$(id -u)" != 0 ]; then
        fail $USAGE_ERROR "this is user $(id -un), not root" "run it as root, also to --dry-run"
    fi
}

# Sets `here`, `wheel` or `source`, and `version`.
find_program() {
    local wheels
    here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
    cd / # whoever the commands run as can be here
    source=$(dirname "$here")
    wheel=""
    shopt -s nullglob
    wheels=("$here"/sessionwatch-*.whl)
    shopt -u nullglob
    if [ ${#wheels[@]} -gt 1 ]; then
        fail $USAGE_ERROR "there are several wheels in $here" "leave the one to install"
    elif [ ${#wheels[@]} -eq 1 ]; then
        wheel=${wheels[0]}
        version=$(basename "$wheel" | cut -d- -f2)
    elif [ -f "$source/pyproject.toml" ] && [ -d "$source/indexer" ]; then
        version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$source/pyproject.toml")
    else
        fail $USAGE_ERROR "there is no program: neither a wheel in $here nor sources in $source" \
            "run it from a clone or an unpacked release, or put sessionwatch-*.whl beside it"
    fi
}

# --- packages, user, program --------------------------------------------------------------------

is_installed() { [[ $(dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null || true) == ii* ]]; }

install_packages() {
    local package missing=()
    for package in "$@"; do
        if ! is_installed "$package"; then missing+=("$package"); fi
    done
    if [ ${#missing[@]} -eq 0 ]; then return; fi
    run apt-get --quiet=2 update
    run env DEBIAN_FRONTEND=noninteractive \
        apt-get --quiet=2 --yes --no-install-recommends install "${missing[@]}"
}

make_user() {
    if ! getent passwd $SERVICE > /dev/null; then
        say "the user that the service runs as"
        run useradd --system --user-group --home-dir $STATE --no-create-home \
            --shell /usr/sbin/nologin --comment Sessionwatch $SERVICE
    fi
    if [ ! -d $STATE ]; then
        run install --directory --owner=$SERVICE --group=$SERVICE --mode=0750 $STATE
    fi
}

# The parts of a clone that a wheel is built from.
readonly PARTS=(pyproject.toml README.md LICENSE schema.sql indexer)

# What decides whether an installed program is this one.
fingerprint() {
    {
        cat "$here/requirements.lock"
        if [ -n "$wheel" ]; then
            cat "$wheel"
        else
            cd "$source"
            find "${PARTS[@]}" -type f ! -name '*.pyc' -print0 | LC_ALL=C sort -z | xargs -0 cat
        fi
    } | sha256sum | cut -c1-8
}

# is_complete FOLDER [MARK]: whether a program was installed there to the end.
is_complete() { compgen -G "$1/.complete-${2:-*}" > /dev/null; }

# has_our_python FOLDER: not after an upgrade of Debian, which brings another Python.
has_our_python() {
    [ -d "$1/lib/$($PYTHON -c 'import sys; print("python%d.%d" % sys.version_info[:2])')" ]
}

# Sets `target`, the folder of this program, and makes it unless it is there. A version that is
# there with other contents, or for another Python, is left alone: it may be running.
make_program() {
    local mark pip built
    mark=$(fingerprint)
    target=$PREFIX/$version
    if is_complete "$target" && ! { is_complete "$target" "$mark" && has_our_python "$target"; }; then
        target=$PREFIX/$version+$mark
    fi
    if is_complete "$target" "$mark" && has_our_python "$target"; then return; fi
    say "the program, version $version"
    if [ -e "$target" ]; then run rm -rf "$target"; fi # a former attempt did not get far
    run install --directory --mode=0755 $PREFIX
    built=$wheel
    if [ -z "$wheel" ]; then
        run rm -rf $BUILD
        run $PYTHON -m venv $BUILD
        run $BUILD/bin/pip --quiet install --require-hashes --no-deps --only-binary :all: \
            --requirement "$here/build.lock"
        run install --directory $BUILD/source
        run cp --recursive "${PARTS[@]/#/$source/}" $BUILD/source
        run $BUILD/bin/pip --quiet wheel --no-deps --no-index --no-build-isolation \
            --wheel-dir $BUILD $BUILD/source
        built=$BUILD/sessionwatch-$version-py3-none-any.whl
    fi
    run $PYTHON -m venv "$target"
    pip=$target/bin/pip
    run "$pip" --quiet install --require-hashes --no-deps --only-binary :all: \
        --requirement "$here/requirements.lock"
    run "$pip" --quiet install --no-deps --no-index "$built"
    run rm -rf $BUILD
    run touch "$target/.complete-$mark"
}

# --- database -----------------------------------------------------------------------------------

readonly AS_POSTGRES=(runuser --user postgres --)

# ask DATABASE SQL: one value, nothing if the server is away.
ask() {
    "${AS_POSTGRES[@]}" psql --no-psqlrc --quiet --no-align --tuples-only \
        --dbname="$1" --command="$2" 2> /dev/null || true
}

server_answers() { [ "$(ask postgres 'SELECT 1')" = 1 ]; }

has_clusters() { [ -n "$(pg_lsclusters --no-header 2> /dev/null || true)" ]; }

start_server() {
    local number cluster
    if server_answers; then return; fi
    if systemd_runs; then
        run systemctl start postgresql
    elif has_clusters; then
        read -r number cluster _ <<< "$(pg_lsclusters --no-header)"
        run pg_ctlcluster "$number" "$cluster" start
    else
        # only a dry run comes here: what the package will have made
        run pg_ctlcluster "$([ "$release" = 12 ] && echo 15 || echo 17)" main start
    fi
}

# Sets `port`.
make_database() {
    local number
    say "the database"
    if ! server_answers && ! has_clusters; then install_packages postgresql; fi
    start_server
    port=$(ask postgres 'SHOW port')
    port=${port:-5432} # a dry run, where no server is yet
    if [ "$port" != 5432 ]; then
        left_out+=("Postgres listens on port $port: database.url has to be $(database_url)")
    fi
    number=$(ask postgres 'SHOW server_version_num')
    if [ -n "$number" ] && [ "$number" -lt 150000 ]; then
        fail $UNSUPPORTED "the Postgres on this machine is version ${number%????}, too old" \
            "bring it to 15 or later, or give --no-database and a database elsewhere"
    fi
    if [ "$(ask postgres "SELECT 1 FROM pg_database WHERE datname = '$SERVICE'")" != 1 ]; then
        # Where the system has no language, a database of the default kind could not hold UTF-8.
        run "${AS_POSTGRES[@]}" createdb --template=template0 --encoding=UTF8 --locale=C.UTF-8 $SERVICE
    fi
}

database_url() {
    printf 'postgresql:///%s' $SERVICE
    if [ "$port" != 5432 ]; then printf '?port=%s' "$port"; fi
}

psql_run() {
    run "${AS_POSTGRES[@]}" psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --dbname=$SERVICE \
        --command="$1"
}

# The schema makes the roles. Exit code: that of `schema apply`.
apply_schema() {
    # An empty file, as the service's own configuration is not for postgres to read.
    run "${AS_POSTGRES[@]}" env --ignore-environment PATH=/usr/bin:/bin \
        SESSIONWATCH_CONFIG=/dev/null SESSIONWATCH_DATABASE__URL="$(database_url)" \
        "$target/bin/sessionwatch" schema apply
}

make_login() {
    if [ "$(ask $SERVICE "SELECT 1 FROM pg_roles WHERE rolname = '$SERVICE'")" != 1 ]; then
        psql_run "CREATE ROLE $SERVICE LOGIN"
    fi
    if [ "$(ask $SERVICE "SELECT pg_has_role('$SERVICE', '${SERVICE}_writer', 'MEMBER')")" != t ]; then
        psql_run "GRANT ${SERVICE}_writer TO $SERVICE"
    fi
}

# --- configuration ------------------------------------------------------------------------------

make_configuration() {
    if [ ! -d $CONFIG_FOLDER ]; then run install --directory --mode=0755 $CONFIG_FOLDER; fi
    if [ ! -d $CREDENTIALS ]; then run install --directory --mode=0700 $CREDENTIALS; fi
    if [ ! -e $CONFIG ]; then
        say "a first configuration, to be filled in"
        run install --group=$SERVICE --mode=0640 "$here/sessionwatch.toml" $CONFIG
    fi
}

# `sessionwatch check` as the service will see it; its exit code.
check_configuration() {
    run systemd-run --quiet --pipe --wait --collect --uid=$SERVICE \
        --property=LoadCredential=$SERVICE:$CREDENTIALS $COMMAND check
}

# --- service ------------------------------------------------------------------------------------

# Switches to `target`. The schema comes first: if it fails, nothing was switched.
switch() {
    local code=0 stopped="" is_new="" unit_changed=""
    if [ ! -e $UNIT ]; then is_new=yes; fi
    if ! cmp --quiet "$here/systemd/sessionwatch.service" $UNIT; then unit_changed=yes; fi

    if [ "$(readlink $CURRENT || true)" != "$target" ]; then
        if is_active; then
            run systemctl stop $SERVICE
            stopped=yes
        fi
        if [ -n "$database" ]; then apply_schema || code=$?; fi
        if [ $code != 0 ]; then
            if [ -n "$stopped" ]; then run systemctl start $SERVICE; fi
            fail $code "the schema could not be brought to version $version of the program" \
                "see what it says above; nothing was switched: $(readlink $CURRENT || echo nothing) stays"
        fi
        run ln --symbolic --force --no-dereference "$target" $CURRENT.new
        run mv --no-target-directory $CURRENT.new $CURRENT
    elif [ -n "$database" ]; then
        apply_schema
    fi
    if [ -n "$database" ]; then make_login; fi
    if [ "$(readlink $COMMAND || true)" != $CURRENT/bin/sessionwatch ]; then
        run ln --symbolic --force --no-dereference $CURRENT/bin/sessionwatch $COMMAND
    fi

    if [ -n "$unit_changed" ]; then
        say "the service"
        run install --mode=0644 -D "$here/systemd/sessionwatch.service" $UNIT
    fi
    if ! systemd_runs; then
        left_out+=("systemd does not run here: the service was not enabled and not started")
        return
    fi
    if [ -n "$unit_changed" ]; then run systemctl daemon-reload; fi
    # Once: who disables it later means it.
    if [ -n "$is_new" ]; then run systemctl enable --quiet $SERVICE; fi
    start "$stopped" "$unit_changed"
}

# start STOPPED UNIT_CHANGED: where there is something to watch and nothing speaks against it.
start() {
    local code=0
    if [ -n "$1" ]; then
        run systemctl start $SERVICE
        return
    fi
    if is_active; then
        if [ -n "$2" ]; then run systemctl restart $SERVICE; fi
        return
    fi
    if [ "$verb" = upgrade ]; then
        left_out+=("the service did not run before, so it was not started: systemctl start $SERVICE")
        return
    fi
    if cmp --quiet "$here/sessionwatch.toml" $CONFIG && [ -z "$(ls $CREDENTIALS)" ]; then
        left_out+=("no chain is configured yet: name one in $CONFIG, then systemctl start $SERVICE")
        return
    fi
    if [ ! -e $CONFIG ]; then # a dry run of the first installation
        say "once a chain is configured: systemctl start $SERVICE"
        return
    fi
    check_configuration || code=$?
    # A node that is away is waited for.
    if [ $code != 0 ] && [ $code != $TRY_AGAIN ]; then
        left_out+=("the configuration has mistakes, see above: mend $CONFIG, then systemctl start $SERVICE")
        return
    fi
    run systemctl start $SERVICE
}

# Keeps the program that runs and the one before it.
remove_old_programs() {
    local folder
    if [ "$previous" = "$target" ]; then return; fi
    for folder in "$PREFIX"/*; do
        if [ -d "$folder" ] && [ ! -L "$folder" ] \
            && [ "$folder" != "$target" ] && [ "$folder" != "$previous" ]; then
            run rm -rf "$folder"
        fi
    done
}

# --- the verbs ----------------------------------------------------------------------------------

do_install() {
    install_packages ca-certificates python3 python3-venv
    make_user
    make_program
    if [ -n "$database" ]; then make_database; fi
    make_configuration
    previous=$(readlink $CURRENT || true)
    switch
    remove_old_programs
}

do_upgrade() {
    if [ ! -L $CURRENT ]; then
        fail $USAGE_ERROR "there is nothing to upgrade in $PREFIX" "install it: install.sh install"
    fi
    if [ -n "$database" ] && [ "$(ask $SERVICE 'SELECT 1')" != 1 ]; then
        database=""
        left_out+=("no database $SERVICE answers on this machine: if the program asks for another \
schema version, its owner has to run: sessionwatch schema apply")
    fi
    do_install
}

do_uninstall() {
    local role
    if is_active; then run systemctl stop $SERVICE; fi
    if [ -e $UNIT ]; then
        if systemd_runs; then run systemctl disable --quiet $SERVICE; fi
        run rm -f $UNIT
        if systemd_runs; then run systemctl daemon-reload; fi
    fi
    if [ -L $COMMAND ]; then run rm -f $COMMAND; fi
    if [ -e $PREFIX ]; then run rm -rf $PREFIX; fi
    if [ -z "$purge" ]; then
        left_out+=("kept: $CONFIG_FOLDER, $STATE, the user and the database $SERVICE; --purge removes them")
        return
    fi
    run rm -rf $CONFIG_FOLDER $STATE $UNIT.d
    if [ -n "$database" ] && server_answers; then
        run "${AS_POSTGRES[@]}" dropdb --if-exists --force $SERVICE
        for role in $SERVICE ${SERVICE}_reader ${SERVICE}_writer ${SERVICE}_owner; do
            run "${AS_POSTGRES[@]}" dropuser --if-exists "$role" \
                || left_out+=("the role $role is used by another database, and stays")
        done
    fi
    if getent passwd $SERVICE > /dev/null; then run userdel $SERVICE; fi
}

read_arguments "$@"
check_system
find_program
"do_$verb"
for line in ${left_out[@]+"${left_out[@]}"}; do say "$line"; done
say "$verb: ${dry_run:+dry run }done"
