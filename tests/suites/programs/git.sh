git init -q -b main one
cd one
plant tree
rm tree/pipe
for i in 1 2 3 4 5 6; do
    for j in 1 2 3 4 5 6 7 8; do
        mkdir -p "$i"
        seq "$i" "$j$j$j" >"$i/$j"
    done
    git add -A
    git commit -qm "$i"
done
git checkout -qb side HEAD~2
echo side >side
git add side
git commit -qm side
git checkout -q main
git merge -q --no-edit side
git mv 1 moved
git commit -qm moved
git rm -qr 2
git stash -q
git stash pop -q --index
git commit -qm removed
test -z "$(git status --porcelain)"
git gc -q --prune=now
git fsck --strict
cd ..
git clone -q one two
git clone -q --no-hardlinks one three
cd two
echo more >more
git add more
git commit -qm more
git push -q origin HEAD:other
git fsck --strict
cd ../one
git merge -q other
test "$(cat more)" = more
test -z "$(git status --porcelain)"
git worktree add -q ../four side
test "$(cat ../four/side)" = side
git repack -qad
git fsck --strict
