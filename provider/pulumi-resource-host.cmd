@node --require tsx/cjs "%~dp0main.ts" %*
