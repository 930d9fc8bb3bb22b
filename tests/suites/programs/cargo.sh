export CARGO_INCREMENTAL=1
mkdir -p tiny/src
cd tiny
printf '[package]\nname = "tiny"\nversion = "0.1.0"\nedition = "2021"\n' >Cargo.toml
echo 'fn main() { println!("{}", tiny::number()); }' >src/main.rs
echo 'pub fn number() -> u32 { 1 }' >src/lib.rs
"$CARGO" build -q --offline
test "$(target/debug/tiny)" = 1
sleep 1
echo 'pub fn number() -> u32 { 2 }' >src/lib.rs
"$CARGO" build -q --offline
test "$(target/debug/tiny)" = 2
"$CARGO" build -q --offline
rm -r target/debug/incremental
