# Times to the nanosecond.
sync() { rsync -aHX -@-1 "$@"; }
plant "$ASIDE/a"
sync "$ASIDE/a/" b/
alike "$ASIDE/a" b
seq 1 100 | dd of="$ASIDE/a/deep/random" bs=1 seek=1000 conv=notrunc 2>/dev/null
rm "$ASIDE/a/nothing"
echo new >"$ASIDE/a/new"
sync --delete --checksum "$ASIDE/a/" b/
alike "$ASIDE/a" b
seq 1 100 | dd of="$ASIDE/a/deep/random" bs=1 seek=70000 conv=notrunc 2>/dev/null
echo more >>"$ASIDE/a/numbers"
sync --inplace --no-whole-file "$ASIDE/a/" b/
alike "$ASIDE/a" b
sync b/ "$ASIDE/back/"
alike b "$ASIDE/back"
