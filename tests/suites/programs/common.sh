# Makes a tree of everything that a folder may hold.
plant() {
    mkdir -p "$1/deep/er" "$1/empty"
    seq 1 20000 >"$1/numbers"
    head -c 300000 /dev/urandom >"$1/deep/random"
    printf x >"$1/deep/er/x"
    : >"$1/nothing"
    ln -s deep/er/x "$1/link"
    ln -s /nowhere "$1/dangling"
    ln "$1/numbers" "$1/same"
    mkfifo "$1/pipe"
    chmod 751 "$1/deep/er/x"
    chmod 1777 "$1/empty"
    touch -d 2001-02-03T04:05:06.123456789 "$1/deep/random"
    touch -h -d 2002-02-03T04:05:06.123456789 "$1/link"
    touch -d 2003-02-03T04:05:06.123456789 "$1/deep/er"
}
# Everything that can be told of a tree but who owns it.
look() {
    (
        cd "$1"
        find . -type d -printf '%P d %m %T@\n' -o -printf '%P %y %m %s %n %l %T@\n' | sort
        find . -type f -exec sha1sum {} + | sort
    )
}
alike() { diff <(look "$1") <(look "$2"); }
