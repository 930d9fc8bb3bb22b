for how in yes no auto; do
    seq 1 3000 >"$how"
    chmod 640 "$how"
    vim -Nu NONE -i NONE -es -c "set backupcopy=$how" -c '%s/^77$/seventy/' -c wq "$how" </dev/null
    test "$(grep -c seventy "$how")" = 1
    test "$(wc -l <"$how")" = 3000
    test "$(stat -c %a "$how")" = 640
done
vim -Nu NONE -i NONE -es -c 'set backup undofile backupskip=' -c '%s/^78$/eighty/' -c wq yes </dev/null
test -e yes~
test "$(ls -A | grep -c '\.sw')" = 0
