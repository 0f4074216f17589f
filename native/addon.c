/* The addon's entry and its Node-API plumbing. */
#include "addon.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct arguments get_arguments(napi_env env, napi_callback_info info)
{
	struct arguments arguments = { .env = env, .count = MAX_ARGUMENTS };

	napi_get_cb_info(env, info, &arguments.count, arguments.value, NULL, NULL);
	return arguments;
}

bool is_throwing(napi_env env)
{
	bool pending = false;

	napi_is_exception_pending(env, &pending);
	return pending;
}

static void throw_type(napi_env env, const char *message)
{
	if (!is_throwing(env))
		napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", message);
}

int64_t integer_argument(const struct arguments *arguments, size_t index)
{
	int64_t number = 0;

	if (napi_get_value_int64(arguments->env, arguments->value[index], &number) != napi_ok)
		throw_type(arguments->env, "a number was expected");
	return number;
}

/* A 64-bit word: a bigint (its low 64 bits, either sign) or a number. */
uint64_t word_argument(const struct arguments *arguments, size_t index)
{
	napi_env env = arguments->env;
	napi_valuetype type;
	uint64_t word = 0;
	bool lossless;

	napi_typeof(env, arguments->value[index], &type);
	if (type == napi_bigint) {
		int64_t negative;

		napi_get_value_bigint_uint64(env, arguments->value[index], &word, &lossless);
		if (!lossless) {
			napi_get_value_bigint_int64(env, arguments->value[index], &negative, &lossless);
			word = (uint64_t)negative;
		}
		return word;
	}
	return (uint64_t)integer_argument(arguments, index);
}

uint8_t *bytes_argument(const struct arguments *arguments, size_t index, size_t *length)
{
	napi_env env = arguments->env;
	napi_typedarray_type type;
	size_t elements, width = 1;
	void *data = NULL;
	bool typed = false;

	*length = 0;
	napi_is_typedarray(env, arguments->value[index], &typed);
	if (!typed ||
	    napi_get_typedarray_info(env, arguments->value[index], &type, &elements, &data, NULL, NULL) != napi_ok) {
		throw_type(env, "a typed array was expected");
		return NULL;
	}
	switch (type) {
	case napi_int16_array:
	case napi_uint16_array:
		width = 2;
		break;
	case napi_int32_array:
	case napi_uint32_array:
	case napi_float32_array:
		width = 4;
		break;
	case napi_float64_array:
	case napi_bigint64_array:
	case napi_biguint64_array:
		width = 8;
		break;
	default:
		break;
	}
	*length = elements * width;
	return data;
}

napi_value throw_errno(napi_env env, int error, const char *call)
{
	const char *name = strerrorname_np(error);
	napi_value code, message, thrown, syscall_name;
	char text[160];

	snprintf(text, sizeof(text), "%s: %s (%s)", call, strerror(error), name ? name : "unknown");
	napi_create_string_utf8(env, name ? name : "UNKNOWN", NAPI_AUTO_LENGTH, &code);
	napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &message);
	napi_create_error(env, code, message, &thrown);
	napi_create_string_utf8(env, call, NAPI_AUTO_LENGTH, &syscall_name);
	set_property(env, thrown, "syscall", syscall_name);
	set_property(env, thrown, "errno", make_number(env, -error));
	napi_throw(env, thrown);
	return NULL;
}

napi_value make_bytes(napi_env env, const void *data, size_t length)
{
	napi_value buffer, array;
	void *target;

	napi_create_arraybuffer(env, length, &target, &buffer);
	if (data && length)
		memcpy(target, data, length);
	napi_create_typedarray(env, napi_uint8_array, length, buffer, 0, &array);
	return array;
}

napi_value make_number(napi_env env, double number)
{
	napi_value value;

	napi_create_double(env, number, &value);
	return value;
}

napi_value make_word(napi_env env, uint64_t word)
{
	napi_value value;

	napi_create_bigint_uint64(env, word, &value);
	return value;
}

napi_value make_undefined(napi_env env)
{
	napi_value value;

	napi_get_undefined(env, &value);
	return value;
}

napi_value make_null(napi_env env)
{
	napi_value value;

	napi_get_null(env, &value);
	return value;
}

void set_property(napi_env env, napi_value object, const char *name, napi_value value)
{
	napi_set_named_property(env, object, name, value);
}

void export_function(napi_env env, napi_value exports, const char *name, napi_callback callback)
{
	napi_value function;

	napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, NULL, &function);
	set_property(env, exports, name, function);
}

NAPI_MODULE_INIT()
{
	export_system(env, exports);
	export_trace(env, exports);
	export_memory(env, exports);
	return exports;
}
