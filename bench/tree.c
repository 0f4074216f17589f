/*
 * A tree of processes connected by pipes and sockets, and a process of many threads, to be dumped and restarted.
 *
 *     tree FILE PROCESSES THREADS
 *
 * The first process has a child for every nine others, which are that one's children. Each has a pipe from its parent
 * and a socket to it; a token goes down the pipes and comes back up the sockets again and again, and the first process
 * counts: so only a tree in which all connections hold goes on. Each process has THREADS threads that wait.
 * FILE is told the address of the count, as `memory hold` does.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static volatile uint64_t beat[2];

struct child {
	int pipe, socket;
};

static void must(int good, const char *what)
{
	if (good)
		return;
	perror(what);
	exit(1);
}

static void *wait_for_ever(void *nothing)
{
	for (;;)
		pause();
	return nothing;
}

static void make_threads(int threads)
{
	pthread_attr_t attributes;
	pthread_t thread;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 64 << 10);
	for (int i = 0; i < threads; i++)
		must(pthread_create(&thread, &attributes, wait_for_ever, NULL) == 0, "pthread_create");
}

static void pass_on(const struct child *child, int children, char token)
{
	for (int i = 0; i < children; i++)
		must(write(child[i].pipe, &token, 1) == 1, "write");
	for (int i = 0; i < children; i++)
		must(read(child[i].socket, &token, 1) == 1, "read");
}

static struct child spawn(int others, int threads);

/* `others` below this process, itself not counted. Returns its children. */
static struct child *spawn_all(int others, int threads, int *children)
{
	struct child *child = calloc(others + 1, sizeof(*child));

	for (*children = 0; others > 0; ++*children) {
		int below = others > 9 ? 9 : 0;

		if (others <= below)
			below = others - 1;
		child[*children] = spawn(below, threads);
		others -= below + 1;
	}
	make_threads(threads);
	return child;
}

static struct child spawn(int others, int threads)
{
	int down[2], up[2], children;
	char token;
	pid_t pid;

	must(pipe(down) == 0, "pipe");
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, up) == 0, "socketpair");
	pid = fork();
	must(pid >= 0, "fork");
	if (pid == 0) {
		struct child *child;

		must(dup2(down[0], 0) == 0 && dup2(up[1], 1) == 1, "dup2");
		must(close_range(3, ~0U, 0) == 0, "close_range");
		child = spawn_all(others, threads, &children);
		while (read(0, &token, 1) == 1) {
			pass_on(child, children, token);
			must(write(1, &token, 1) == 1, "write");
		}
		exit(0);
	}
	close(down[0]);
	close(up[1]);
	return (struct child){ .pipe = down[1], .socket = up[0] };
}

int main(int count, char **argument)
{
	int children;
	struct child *child;
	FILE *told;

	must(count == 4, "usage: tree FILE PROCESSES THREADS");
	child = spawn_all(atoi(argument[2]) - 1, atoi(argument[3]), &children);
	told = fopen(argument[1], "w");
	must(told != NULL, argument[1]);
	fprintf(told, "%lu 0\n", (unsigned long)beat);
	fclose(told);
	for (;; beat[0]++) {
		pass_on(child, children, 't');
		usleep(10000);
	}
}
