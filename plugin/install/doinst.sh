#!/bin/sh
# Run by the package tools in the root that the package was unpacked into, at each boot of Unraid.
LINK=usr/local/vm-babysitter/python/bin/link-libs
if [ "$(pwd -P)" = / ]; then
  bash "/$LINK"
else
  chroot . /bin/bash "/$LINK"
fi
