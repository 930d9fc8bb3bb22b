echo 1 >log
tail -n +1 -f log >"$ASIDE/seen" &
follower=$!
for i in 2 3 4 5; do
    sleep 0.2
    echo $i >>log
done
for wait in $(seq 1 50); do
    if seq 1 5 | cmp -s - "$ASIDE/seen"; then break; fi
    sleep 0.1
done
kill $follower
seq 1 5 | cmp - "$ASIDE/seen"
