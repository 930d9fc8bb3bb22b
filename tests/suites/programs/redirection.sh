echo 1 >f
echo 2 >>f
printf '1\n2\n' | cmp - f
{ read -r a; read -r b; } <f
test "$a$b" = 12
cat f f >g
cat >h <<EOF
$(cat g)
EOF
cmp g h
: >f
test ! -s f
set -C
! echo x >g
set +C
exec 3<>g
read -r first <&3
echo X >&3
exec 3>&-
printf '1\nX\n1\n2\n' | cmp - g
seq 1 100000 | tee one two | sort -rn >three
cmp one two
test "$(head -n 1 three)" = 100000
