printf 'there\n' >f
type_it() {
    sleep 1
    for keys in 'hello ' '\017' '\r' '\030'; do
        printf "$keys"
        sleep 0.5
    done
}
type_it | script -qec 'nano --ignorercfiles --backup f' /dev/null >/dev/null
printf 'hello there\n' | cmp - f
printf 'there\n' | cmp - f~
