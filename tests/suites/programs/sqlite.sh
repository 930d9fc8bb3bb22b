# A writer that is killed: what it said to be there is there.
write() {
    exec python3 -c '
import sqlite3, sys, itertools
mode, sync = sys.argv[2:]
base = sqlite3.connect(sys.argv[1], isolation_level=None)
base.execute(f"pragma journal_mode={mode}")
base.execute(f"pragma synchronous={sync}")
base.execute("create table if not exists t(n integer primary key, text)")
start = base.execute("select coalesce(max(n), 0) from t").fetchone()[0]
for n in itertools.count(start + 1):
    base.execute("begin immediate")
    base.execute("insert into t values(?, ?)", (n, "x" * (n % 700)))
    base.execute("delete from t where n = ?", (n - 500,))
    base.execute("commit")
    print(n, flush=True)
' "$@"
}
check() {
    python3 -c '
import sqlite3, sys
last = int(sys.argv[2])
base = sqlite3.connect(sys.argv[1])
assert base.execute("pragma integrity_check").fetchall() == [("ok",)]
rows = [n for n, in base.execute("select n from t order by n")]
assert rows and rows[-1] >= last, (rows[-1:], last)
assert rows == list(range(max(1, rows[-1] - 499), rows[-1] + 1)), rows
' "$@"
}
for mode in wal delete truncate persist; do
    for sync in normal full; do
        write "$mode.db" "$mode" "$sync" >"$ASIDE/rows" &
        writer=$!
        sleep "$SECONDS_OF_WRITING"
        kill -9 $writer
        wait $writer || true
        check "$mode.db" "$(tail -n 1 "$ASIDE/rows")"
    done
done
