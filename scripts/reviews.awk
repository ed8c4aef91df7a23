# Turns rated sentences into labelled ones, parted into training and evaluation.
#
# In:  id TAB mean rating (-4 to 4) TAB text, CRLF or LF.
# Out: files `train` and `eval` (awk variables) with text TAB label; on standard output a notice
#      with the counts.
#
# The label is the sign of the rating; ratings from -0.5 to 0.5 are left out. A sentence's side
# follows from a hash of its text without regard to case, white space, punctuation and
# characters outside ASCII (of which awks differ in their view), so equal sentences share a
# side, and the split is the same everywhere. To be run under LC_ALL=C.

BEGIN {
    FS = "\t"
    for (i = 1; i < 127; i++) code[sprintf("%c", i)] = i
    seed = 20140601
    printf "" > train
    printf "" > eval
}

function side(key,    h, i, c) {
    h = seed
    for (i = 1; i <= length(key); i++) {
        c = substr(key, i, 1)
        if (c in code && !index(" .,;:!?'\"`()-", c)) h = (h * 131 + code[c]) % 2147483647
    }
    return (h % 1000 < 110) ? eval : train
}

{
    sub(/\r$/, "")
    if (NF < 3 || ($2 <= 0.5 && $2 >= -0.5)) next
    text = $3
    for (i = 4; i <= NF; i++) text = text " " $i
    gsub(/[ \t\r\f\v]+/, " ", text)
    sub(/^ /, "", text)
    sub(/ $/, "", text)
    if (text == "") next
    label = ($2 > 0) ? 1 : 0
    to = side(tolower(text))
    print text "\t" label > to
    n[to, label]++
}

END {
    print "Movie review snippets with labels from mean ratings, out of vaderSentiment 3.3.2"
    print "(MIT licence; C.J. Hutto and E.E. Gilbert: VADER: A Parsimonious Rule-based Model for"
    print "Sentiment Analysis of Social Media Text, ICWSM 2014)."
    printf "counts: train %d (%d positive), eval %d (%d positive)\n", \
        n[train, 0] + n[train, 1], n[train, 1], n[eval, 0] + n[eval, 1], n[eval, 1]
}
