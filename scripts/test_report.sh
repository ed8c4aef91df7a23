#!/bin/sh
# The report page in a browser: it opens without an error and without network, in less than a
# second, has its parts, and looks as screenshots in BUILD/report show: light, dark, as wide as a
# phone, and as PDF for paper.
#
#   scripts/test_report.sh BUILD       BUILD: where `make examples` put the programs
set -eu
build=$1
out=$build/report
here=$(dirname "$0")

browser=
for name in chromium chromium-browser google-chrome google-chrome-stable; do
    if command -v "$name" > /dev/null; then
        browser=$name
        break
    fi
done
if [ -z "$browser" ]; then
    echo "test_report: not run: there is no chromium (apt install chromium)" >&2
    exit 3
fi
rm -rf "$out"
mkdir -p "$out"

fail() {
    echo "test_report: $1" >&2
    exit 1
}

# Chromium without window, network and a profile that stays.
chrome() {
    "$browser" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars \
        --no-first-run --disable-background-networking --disable-component-update \
        --user-data-dir="$out/profile" --host-resolver-rules='MAP * ~NOTFOUND' \
        --enable-logging=stderr --log-level=0 "$@" 2> "$out/browser.log"
    # What the page itself prints, errors of its script or of its security policy.
    if grep 'CONSOLE' "$out/browser.log"; then
        fail "the page prints to the console"
    fi
}

synthetic() {
    awk "$@" -f "$here/synthetic_log.awk"
}

synthetic -v steps=10000 -v layers=12 > "$out/long.jsonl"
for seed in 1 2 3; do
    synthetic -v steps=400 -v seed=$seed > "$out/joint-$seed.jsonl"
    synthetic -v steps=400 -v seed=$seed -v mutual=0 > "$out/alone-$seed.jsonl"
done
printf '{"type":"step","step":401,"time' >> "$out/alone-3.jsonl"
echo '{"type":"step","step":1,"models":[{"name":"<script>alert(1)</script>","loss":1}]}' \
    > "$out/bare.jsonl"

"$build/examples/report" "$out/long.jsonl" -o "$out/one.html"
"$build/examples/report" "$out"/joint-?.jsonl "$out"/alone-?.jsonl -o "$out/six.html"
"$build/examples/report" "$out/bare.jsonl" -o "$out/bare.html"
size=$(wc -c < "$out/one.html")
[ "$size" -lt 2000000 ] || fail "the page of 10,000 steps has $size bytes"

# What a browser makes of the page, its script run.
has() {
    grep -q "$2" "$1.dom" || fail "$1 lacks $2"
}
for page in one six bare; do
    chrome --dump-dom "file://$(cd "$out" && pwd)/$page.html" > "$out/$page.dom"
    for part in '<h1>Training report' 'id="scores"' 'id="options"' '</footer>'; do
        has "$out/$page" "$part"
    done
    # The script has run: its buttons are shown.
    has "$out/$page" '<button type="button" data-copy="copy-tsv">'
    if grep -q '<script>alert' "$out/$page.dom"; then
        fail "$page.html holds markup of its log"
    fi
done
for part in 'Training loss' 'Score on the evaluation set' 'By role and depth' 'class="plan"' \
    'Distance between shared parameters' 'Trajectories: attention' 'Peak memory'; do
    has "$out/one" "$part"
done
has "$out/six" '(3 seeds)'
has "$out/six" 'is torn'

# How long the browser needs until the page is laid out; the fastest of three.
cat > "$out/time.js" <<'JS'
<script>addEventListener("load", function () { requestAnimationFrame(function () {
document.body.dataset.milliseconds = Math.round(performance.now()); }); });</script>
JS
sed "/^<\/head>/r $out/time.js" "$out/one.html" > "$out/timed.html"
fastest=100000
for round in 1 2 3; do
    chrome --dump-dom --virtual-time-budget=5000 "file://$(cd "$out" && pwd)/timed.html" \
        > "$out/timed.dom"
    took=$(sed -n 's/.*data-milliseconds="\([0-9]*\)".*/\1/p' "$out/timed.dom" | head -n 1)
    [ -n "$took" ] || fail "round $round: no time was measured"
    [ "$took" -ge "$fastest" ] || fastest=$took
done
[ "$fastest" -lt 1000 ] || fail "the page opens in $fastest ms"

view() {
    name=$1 page=$2 window=$3
    shift 3
    chrome --screenshot="$out/$name.png" --window-size="$window" "$@" \
        "file://$(cd "$out" && pwd)/$page.html"
    [ -s "$out/$name.png" ] || fail "no screenshot $name.png"
}
view light one 1280,7000
view dark one 1280,7000 --blink-settings=preferredColorScheme=0
# A window is at least 500 pixels wide, a frame may be as narrow as a phone.
echo '<body style="margin:0"><iframe src="one.html" width="390" height="12000" style="border:0">' \
    > "$out/phone.html"
view phone phone 500,12000
view runs six 1280,9000
chrome --print-to-pdf="$out/paper.pdf" --no-pdf-header-footer \
    "file://$(cd "$out" && pwd)/one.html"
rm -rf "$out/profile" "$out"/*.dom "$out/time.js" "$out/timed.html" "$out/phone.html"
echo "test_report: three pages, $size bytes for 10,000 steps, opened in $fastest ms;" \
    "screenshots in $out"
