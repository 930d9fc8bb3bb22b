mkdir package application
cd package
cat >package.json <<EOF
{ "name": "tiny", "version": "1.0.0", "main": "index.js", "bin": { "tiny": "./bin.js" } }
EOF
echo 'module.exports = 42' >index.js
printf '#!/usr/bin/env node\nconsole.log(require("tiny"))\n' >bin.js
cd ../application
echo '{ "name": "application", "version": "1.0.0" }' >package.json
export npm_config_cache="$PWD/../cache" npm_config_update_notifier=false
npm install --offline --no-audit --no-fund --loglevel=error --install-links ../package
test "$(node -p 'require("tiny")')" = 42
test "$(./node_modules/.bin/tiny)" = 42
rm -r node_modules
npm ci --offline --no-audit --no-fund --loglevel=error --install-links
test "$(node -p 'require("tiny")')" = 42
