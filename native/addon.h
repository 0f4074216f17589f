/* What the addon's files share: argument and error plumbing over Node-API. Nothing here decides anything. */
#ifndef PODSTREAM_ADDON_H
#define PODSTREAM_ADDON_H

#define NAPI_VERSION 8
#include <node_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define MAX_ARGUMENTS 10

/* A function's arguments; missing ones read as undefined. */
struct arguments {
	napi_env env;
	size_t count;
	napi_value value[MAX_ARGUMENTS];
};

struct arguments get_arguments(napi_env env, napi_callback_info info);
/* Each throws a TypeError and returns a zero when the argument is of the wrong kind. */
int64_t integer_argument(const struct arguments *arguments, size_t index);
uint64_t word_argument(const struct arguments *arguments, size_t index);
uint8_t *bytes_argument(const struct arguments *arguments, size_t index, size_t *length);

/* Throw an Error with `code` (the errno's name) and `syscall`; returns NULL for the callback to return. */
napi_value throw_errno(napi_env env, int error, const char *call);
bool is_throwing(napi_env env);

napi_value make_bytes(napi_env env, const void *data, size_t length);
napi_value make_number(napi_env env, double number);
napi_value make_word(napi_env env, uint64_t word);
napi_value make_undefined(napi_env env);
napi_value make_null(napi_env env);
void set_property(napi_env env, napi_value object, const char *name, napi_value value);
void export_function(napi_env env, napi_value exports, const char *name, napi_callback callback);

void export_system(napi_env env, napi_value exports);
void export_trace(napi_env env, napi_value exports);
void export_memory(napi_env env, napi_value exports);

#endif
