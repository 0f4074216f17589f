/*
 * Any system call of this process, the one that needs more than pointers to bytes: recvmsg(2), two that must follow
 * each other at once, and what only the processor tells: CPUID.
 */
#include "addon.h"

#include <cpuid.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

/* syscall(number, ...arguments): bigint. Typed arrays are passed as pointers, null as NULL. */
static napi_value call_system(napi_env env, napi_callback_info info)
{
	struct arguments arguments = get_arguments(env, info);
	long word[6] = { 0 };
	napi_value result;
	long returned;

	for (size_t i = 1; i < arguments.count && i <= 6; i++) {
		napi_valuetype type;

		napi_typeof(env, arguments.value[i], &type);
		if (type == napi_object) {
			size_t length;

			word[i - 1] = (long)bytes_argument(&arguments, i, &length);
		} else if (type != napi_null && type != napi_undefined) {
			word[i - 1] = (long)word_argument(&arguments, i);
		}
	}
	int64_t number = integer_argument(&arguments, 0);
	if (is_throwing(env))
		return NULL;
	returned = syscall(number, word[0], word[1], word[2], word[3], word[4], word[5]);
	if (returned == -1)
		return throw_errno(env, errno, "syscall");
	napi_create_bigint_int64(env, returned, &result);
	return result;
}

/* receiveMessage(fd, maxData, flags): ReceivedMessage | undefined (EAGAIN). */
static napi_value receive_message(napi_env env, napi_callback_info info)
{
	struct arguments arguments = get_arguments(env, info);
	int fd = integer_argument(&arguments, 0);
	int64_t most = integer_argument(&arguments, 1);
	int flags = integer_argument(&arguments, 2);
	struct sockaddr_storage address;
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(253 * sizeof(int)) + 256];
	napi_value buffer, array, object;
	void *data;
	ssize_t length;

	if (is_throwing(env))
		return NULL;
	if (most < 0 || most > (256 << 20))
		return throw_errno(env, EINVAL, "recvmsg");
	napi_create_arraybuffer(env, most, &data, &buffer);

	struct iovec vector = { .iov_base = data, .iov_len = most };
	struct msghdr message = {
		.msg_name = &address, .msg_namelen = sizeof(address),
		.msg_iov = &vector, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	length = recvmsg(fd, &message, flags);
	if (length < 0) {
		if (errno == EAGAIN)
			return make_undefined(env);
		return throw_errno(env, errno, "recvmsg");
	}
	/* MSG_TRUNC as a flag makes recvmsg return the real length. */
	napi_create_typedarray(env, napi_uint8_array, length < most ? length : most, buffer, 0, &array);
	napi_create_object(env, &object);
	set_property(env, object, "data", array);
	set_property(env, object, "address", make_bytes(env, &address, message.msg_namelen));
	set_property(env, object, "control", make_bytes(env, control, message.msg_controllen));
	set_property(env, object, "flags", make_number(env, message.msg_flags));
	return object;
}

#define LEAF_FEATURES 7
#define OSPKE (1 << 4)
#define LEAF_XSAVE 0xd
#define COMPONENT_PKRU 9

/* protectionKeyState(): where PKRU lies in the XSAVE area in its standard form; 0 without keys. */
static napi_value protection_key_state(napi_env env, napi_callback_info info)
{
	unsigned int a, b, c = 0, d, place = 0;

	(void)info;
	if (!__get_cpuid_count(LEAF_FEATURES, 0, &a, &b, &c, &d) || !(c & OSPKE))
		return make_number(env, 0);
	__get_cpuid_count(LEAF_XSAVE, COMPONENT_PKRU, &a, &place, &c, &d);
	return make_number(env, place);
}

/*
 * isSemaphore(fd, count): whether a read takes one from an eventfd of this count, not all of it. Nothing but a read
 * can tell, so what it took is put back at once: here, where nothing but two system calls comes between.
 */
static napi_value is_semaphore(napi_env env, napi_callback_info info)
{
	struct arguments arguments = get_arguments(env, info);
	int fd = integer_argument(&arguments, 0);
	uint64_t count = word_argument(&arguments, 1), taken = 0;
	/* One is taken from one either way. */
	uint64_t added = count < 2 ? 2 - count : 0;
	struct iovec word = { .iov_base = &taken, .iov_len = sizeof(taken) };
	napi_value result;

	if (is_throwing(env))
		return NULL;
	if (added > 0 && write(fd, &added, sizeof(added)) < 0)
		return throw_errno(env, errno, "write");
	if (preadv2(fd, &word, 1, -1, RWF_NOWAIT) < 0)
		return throw_errno(env, errno, "preadv2");
	bool semaphore = taken == 1;
	uint64_t missing = semaphore ? 1 : taken;
	if (missing > added) {
		missing -= added;
		if (write(fd, &missing, sizeof(missing)) < 0)
			return throw_errno(env, errno, "write");
	} else if (missing < added && preadv2(fd, &word, 1, -1, RWF_NOWAIT) < 0) {
		return throw_errno(env, errno, "preadv2");
	}
	napi_get_boolean(env, semaphore, &result);
	return result;
}

void export_system(napi_env env, napi_value exports)
{
	export_function(env, exports, "syscall", call_system);
	export_function(env, exports, "receiveMessage", receive_message);
	export_function(env, exports, "protectionKeyState", protection_key_state);
	export_function(env, exports, "isSemaphore", is_semaphore);
}
