#!/usr/bin/env bash
# Runs `mcumgrx dfu` as one step of a workflow. Reads DFU_IMAGE, DFU_DEVICE, DFU_OPTIONS; writes the step summary and the
# outputs exit-code, result and log. Ends with the exit code of mcumgrx.
set -u -o pipefail

folder=$(mktemp -d "${RUNNER_TEMP:-/tmp}/mcumgrx-XXXXXX")
log=$folder/mcumgrx.log
shown=$folder/output.txt

# A message on one line, as the commands of a workflow take it.
told() {
    local text=${1//%/%25}
    echo "::error title=mcumgrx::${text//$'\n'/ }"
}

# Quoted as in a shell, but nothing is expanded or run. The bash of macOS has no mapfile.
if ! words=$(python3 -c 'import shlex, sys; print("\n".join(shlex.split(sys.argv[1])))' "${DFU_OPTIONS:-}" 2>/dev/null); then
    told "the options are not quoted as in a shell: $DFU_OPTIONS"
    exit 2
fi
options=()
while IFS= read -r word; do
    [ -n "$word" ] && options+=("$word")
done <<<"$words"

# What a device or a health check prints may look like a command for the runner, and is none.
token=mcumgrx-$RANDOM$RANDOM$RANDOM
code=0
echo "::stop-commands::$token"
mcumgrx dfu "$DFU_IMAGE" -d "$DFU_DEVICE" --log-file "$log" ${options[@]+"${options[@]}"} 2>&1 | tee "$shown" || code=$?
echo "::$token::"

# The line that tells the end.
pattern='^error: '
[ "$code" -eq 0 ] && pattern='^done: '
result=$(grep -E "$pattern" "$shown" | tail -1)
[ -n "$result" ] || result=$(tail -1 "$shown")
result=${result:-"exit code $code"}

{
    echo "exit-code=$code"
    echo "result=$result"
    echo "log=$log"
} >>"${GITHUB_OUTPUT:-/dev/null}"

title="Device updated"
[ "$code" -eq 0 ] || title="Device not updated (exit code $code)"
# The fence is longer than any in the output is likely to be.
{
    printf '### %s\n\n| Device | Image | Result |\n| --- | --- | --- |\n' "$title"
    printf '| `%s` | `%s` | %s |\n\n' "${DFU_DEVICE//|/\\|}" "${DFU_IMAGE//|/\\|}" "${result//|/\\|}"
    echo '``````````text'
    cat "$shown"
    echo '``````````'
} >>"${GITHUB_STEP_SUMMARY:-/dev/null}"

[ "$code" -eq 0 ] || told "$result"
exit "$code"
