{
  "targets": [
    {
      "target_name": "podstream",
      "sources": ["native/addon.c", "native/system.c", "native/trace.c", "native/memory.c"],
      "defines": ["_GNU_SOURCE"],
      "cflags": ["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-O3", "-fvisibility=hidden"],
      "libraries": ["-lrt"]
    },
    {
      # pid 1 of every pod. Without a C library, and linked below where any session's program lies: see
      # native/pod-init/system.h.
      "target_name": "pod-init",
      "type": "executable",
      "product_extension": "",
      "sources": ["native/pod-init/setup.c", "native/pod-init/confine.c", "native/pod-init/server.c",
        "native/pod-init/view.c"],
      "cflags!": ["-pthread", "-fPIC"],
      "cflags": [
        "-Wall", "-Wextra", "-Werror", "-O2", "-ffreestanding", "-fno-stack-protector", "-fno-pie", "-fno-lto",
        "-fcf-protection=none", "-fno-tree-loop-distribute-patterns", "-fno-asynchronous-unwind-tables"
      ],
      "ldflags!": ["-rdynamic", "-pthread"],
      "ldflags": ["-static", "-nostdlib", "-no-pie", "-Wl,-Ttext-segment=0x10000,-z,noexecstack,--build-id=none"]
    }
  ]
}
