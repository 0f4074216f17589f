# A desktop: an X server of its own (VNC, reachable through a socket file alone), a window manager, a terminal window
# with a shell, and a game. The display's number is free on this computer, because /tmp is.
mkdir -p "$F/home"
export HOME=$F/home XAUTHORITY=$F/home/authority DISPLAY=:$NUMBER
Xvnc "$DISPLAY" -geometry 640x480 -depth 24 -SecurityTypes None -rfbport -1 -rfbunixpath "$F/vnc.sock" \
  -nolisten tcp >"$F/server.log" 2>&1 &
until xdpyinfo >/dev/null 2>&1; do sleep 0.1; done
openbox &
xdemineur -geometry +250+120 &
xterm -geometry 60x10+0+0 -e bash --norc &
wait
