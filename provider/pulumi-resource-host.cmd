@node --require "%~dp0..\toolchain\typescript.cjs" "%~dp0main.ts" %*
