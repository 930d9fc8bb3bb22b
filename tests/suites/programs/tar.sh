plant "$ASIDE/a"
tar cf a.tar -C "$ASIDE" --format=posix a
tar xpf a.tar
alike "$ASIDE/a" a
tar czf again.tgz --format=posix a
mkdir b
tar xzpf again.tgz -C b
alike a b/a
echo more >more
tar rf a.tar more
test "$(tar tf a.tar | tail -n 1)" = more
