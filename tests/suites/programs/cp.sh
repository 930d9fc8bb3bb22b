plant "$ASIDE/a"
cp -a "$ASIDE/a" b
alike "$ASIDE/a" b
cp -a b c
alike b c
cp -a c "$ASIDE/back"
alike "$ASIDE/a" "$ASIDE/back"
cp --sparse=always b/numbers d
cmp b/numbers d
mv b e
alike c e
mv e "$ASIDE/moved"
alike c "$ASIDE/moved"
install -m 700 c/numbers i
test "$(stat -c %a i)" = 700
