{
  "targets": [
    {
      "target_name": "podstream",
      "sources": ["native/addon.c", "native/system.c", "native/trace.c", "native/memory.c"],
      "defines": ["_GNU_SOURCE"],
      "cflags": ["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-O3", "-fvisibility=hidden"]
    }
  ]
}
