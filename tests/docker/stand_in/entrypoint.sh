#!/bin/sh
echo
echo "=========================="
echo "=== Riva Speech Skills ==="
echo "=========================="
exec "$@"
