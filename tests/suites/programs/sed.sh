seq 1 5000 >f
chmod 640 f
sed -i s/^500$/five/ f
test "$(grep -c five f)" = 1
test "$(stat -c %a f)" = 640
sed -i.bak 1d f
test "$(wc -l <f)" = 4999
test "$(wc -l <f.bak)" = 5000
ln -s f link
sed -i --follow-symlinks 1d link
test -L link
test "$(head -n 1 f)" = 3
