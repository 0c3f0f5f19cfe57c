/* The JavaScript guest: QuickJS-NG as a WebAssembly module that imports nothing.
 *
 * The host writes the job's source and its input into linear memory, calls beddel_run once, and
 * reads one struct. Everything in that struct is the guest's word, and may be read after a trap.
 *
 * quickjs.c is included, not linked, for three things its public interface cannot do:
 *
 *   1. Compile the body of a function. Putting "async function(input){" and "}" around a source
 *      would let the source close the function itself, and would shift its columns. Here the parser
 *      is told that it stands inside a function, and the source is read to its end.
 *   2. Keep the parser away from running code. The context has no eval hook, so every way to turn
 *      text into code ends in one TypeError, whatever name or prototype leads there.
 *   3. Tell the engine's own errors (out of memory, stack overflow) from objects that a job made
 *      to look like them. The engine words its errors through vsnprintf, a job's never pass there.
 *
 * The glue touches values by the engine's C functions and internal slots. It calls no method that
 * a job could have replaced, except where JSON and String() themselves would (toJSON, getters,
 * toString); those may loop or throw, and the host's fuel and clock end what does not end.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/time.h>

#include "heap.h"

static int word_error(char *text, size_t size, const char *format, va_list arguments);

#define vsnprintf word_error
#include "quickjs.c"
#undef vsnprintf

#define EXPORT(name) __attribute__((export_name(#name)))

#ifndef STACK_BYTES
#error "STACK_BYTES must be the size given to the linker"
#endif
#define STACK_RESERVE_BYTES (24 * 1024) /* for C frames below the last stack check: 9 KiB at most */
#define MEMORY_RESERVE_BYTES (12 * 1024) /* set free when memory has run out, to say so */

enum status {
    STATUS_SUCCESS = 0,
    STATUS_ERROR = 1,
    STATUS_OUT_OF_MEMORY = 2,
    STATUS_STACK_OVERFLOW = 3,
    STATUS_NEVER_SETTLES = 4,
    STATUS_OUTPUT_NOT_JSON = 5,
    STATUS_SYNTAX_ERROR = 6,
    STATUS_INPUT_NOT_JSON = 7,
    STATUS_UNHANDLED = 8,
    STATUS_UNFINISHED = 255, /* what a host finds after a trap */
};

enum flag {
    FLAG_FUNCTION_CONSTRUCTORS = 1, /* Function and its three relatives may compile text */
};

struct text {
    uint32_t address, length;
};

/* The order is the interface; see README.md. */
struct state {
    uint64_t clock_us, seed;
    uint32_t flags, console_cap;
    uint32_t status;
    struct text output, error_name, error_message, error_stack, console;
    uint32_t console_dropped, console_dropped_lines;
    struct heap_figures heap;
};
_Static_assert(sizeof(struct state) == 88, "the host reads this layout");

static volatile struct state state;
static JSRuntime *runtime;
static JSContext *context;
static void *memory_reserve;

static struct module {
    JSAtom name;
    JSValue exports;
} *modules;
static int module_count, module_size;

/* What the engine itself has said since the start. */
static bool said_out_of_memory, said_stack_overflow, said_not_json;

static const char OUT_OF_MEMORY[] = "out of memory";
static const char OUT_OF_MEMORY_IN_MATCH[] = "out of memory in regexp execution";
static const char STACK_OVERFLOW[] = "Maximum call stack size exceeded";
static const char UNEXPECTED_TOKEN[] = "unexpected token in expression: '%.*s'";

static void note_engine_error(const char *format)
{
    if (!strcmp(format, OUT_OF_MEMORY) || !strcmp(format, OUT_OF_MEMORY_IN_MATCH)) {
        said_out_of_memory = true;
        free(memory_reserve); /* the engine is about to make the error object */
        memory_reserve = NULL;
    } else if (!strcmp(format, STACK_OVERFLOW))
        said_stack_overflow = true;
    else if (!runtime->current_stack_frame) /* no guest function runs: it is our own call */
        said_not_json |= !strcmp(format, "circular reference") ||
                         !strcmp(format, "BigInt are forbidden in JSON.stringify");
}

static int word_error(char *text, size_t size, const char *format, va_list arguments)
{
    if (!strcmp(format, "%s")) { /* the regular expression compiler's own words */
        va_list copy;
        va_copy(copy, arguments);
        note_engine_error(va_arg(copy, const char *));
        va_end(copy);
    } else
        note_engine_error(format);
    if (!strcmp(format, UNEXPECTED_TOKEN)) {
        va_list copy;
        va_copy(copy, arguments);
        int token_length = va_arg(copy, int);
        va_end(copy);
        if (!token_length)
            return snprintf(text, size, "unexpected end of input");
    }
    return vsnprintf(text, size, format, arguments);
}

/* One virtual clock behind every way to ask for the time; each reading moves it by 1 us. */
static uint64_t read_clock_us(void)
{
    uint64_t now = state.clock_us;
    state.clock_us = now + 1;
    return now;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    uint64_t us = read_clock_us();
    now->tv_sec = (time_t)(us / 1000000);
    now->tv_usec = (suseconds_t)(us % 1000000);
    return 0;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    uint64_t us = read_clock_us();
    now->tv_sec = (time_t)(us / 1000000);
    now->tv_nsec = (long)(us % 1000000 * 1000);
    return 0;
}

static void set_text(volatile struct text *field, const char *text, size_t length)
{
    field->length = 0;
    field->address = (uint32_t)(uintptr_t)text;
    field->length = (uint32_t)length;
}

static void set_out_of_memory(void)
{
    state.status = STATUS_OUT_OF_MEMORY;
    set_text(&state.error_name, "InternalError", 13);
    set_text(&state.error_message, OUT_OF_MEMORY, sizeof(OUT_OF_MEMORY) - 1);
}

/* The engine aborts when it cannot allocate what a promise needs to settle. */
_Noreturn void abort(void)
{
    if (heap_refusals)
        set_out_of_memory();
    __builtin_trap();
}

_Noreturn void exit(int code)
{
    __builtin_trap();
}

_Noreturn void __assert_fail(const char *what, const char *file, int line, const char *function)
{
    __builtin_trap();
}

/* Follows the order of js_parse_function_decl2 from the opening brace on, with the end of the
 * input in the brace's place. */
static int parse_body(JSParseState *s)
{
    JSFunctionDef *body = s->cur_func;
    BlockEnv disposal;
    bool has_using = false;

    if (next_token(s) || js_parse_directives(s) ||
        js_parse_function_check_names(s, body, JS_ATOM_NULL))
        return -1;
    while (s->token.val != TOK_EOF) {
        if (js_parse_source_element(s))
            return -1;
        if (!has_using && body->scopes[body->body_scope].has_using) {
            has_using = true;
            push_break_entry(body, &disposal, JS_ATOM_NULL, -1, -1, 1);
            disposal.has_using = true;
            disposal.using_scope_level = body->body_scope;
        }
    }
    if (!has_using) {
        if (js_is_live_code(s))
            emit_return(s, false);
        return 0;
    }
    pop_break_entry(body);
    if (js_is_live_code(s)) {
        emit_op(s, OP_drop); /* the catch offset */
        emit_op(s, OP_using_dispose_init);
        emit_op(s, OP_dispose_scope);
        emit_u16(s, body->body_scope);
        emit_op(s, OP_using_dispose_end);
        emit_return(s, false);
    }
    emit_label(s, body->scopes[body->body_scope].using_label_catch);
    emit_op(s, OP_dispose_scope);
    emit_u16(s, body->body_scope);
    emit_op(s, OP_throw);
    emit_label(s, body->scopes[body->body_scope].using_label_end);
    return 0;
}

/* What a body is compiled as. */
struct signature {
    const char *file;     /* the name in stacks */
    const char *function; /* the function's own name; not a binding in the body */
    const char *const *parameters;
    int parameter_count;
    bool is_job; /* strict and async; otherwise a sloppy plain function */
};

/* Enter the body as the child of s->cur_func, with its parameters bound. */
static int enter_body(JSParseState *s, const struct signature *as)
{
    JSContext *ctx = s->ctx;
    JSFunctionDef *body = js_new_function_def(ctx, s->cur_func, false, false, as->file, 1, 1);
    if (!body)
        return -1;
    s->cur_func = body;
    body->func_name = JS_NewAtom(ctx, as->function);
    if (body->func_name == JS_ATOM_NULL)
        return -1;
    body->func_type = JS_PARSE_FUNC_EXPR;
    body->func_kind = as->is_job ? JS_FUNC_ASYNC : JS_FUNC_NORMAL;
    body->has_arguments_binding = true;
    body->has_this_binding = true;
    body->new_target_allowed = true;
    body->arguments_allowed = true;
    body->has_simple_parameter_list = true;
    for (int i = 0; i < as->parameter_count; i++) {
        JSAtom name = JS_NewAtom(ctx, as->parameters[i]);
        if (name == JS_ATOM_NULL)
            return -1;
        int index = add_arg(ctx, body, name);
        JS_FreeAtom(ctx, name);
        if (index < 0)
            return -1;
    }
    body->defined_arg_count = as->parameter_count;
    body->in_function_body = true;
    if (push_scope(s) < 0)
        return -1;
    body->body_scope = body->scope_level;
    return 0;
}

/* Parse a program whose one value is a function with this body. */
static int parse_program_of(JSParseState *s, const struct signature *as)
{
    JSFunctionDef *program = s->cur_func;
    program->eval_type = JS_EVAL_TYPE_GLOBAL;
    program->is_strict_mode = as->is_job;
    program->is_global_var = true;
    program->has_this_binding = true;
    program->arguments_allowed = true;
    program->func_name = JS_DupAtom(s->ctx, JS_ATOM__eval_);
    if (push_scope(s) < 0)
        return -1;
    program->body_scope = program->scope_level;

    if (enter_body(s, as) || parse_body(s))
        return -1;
    JSFunctionDef *body = s->cur_func;
    s->cur_func = program;
    int index = cpool_add(s, JS_NULL); /* the engine puts the body's bytecode there */
    if (index < 0)
        return -1;
    body->parent_cpool_idx = index;
    emit_op(s, OP_fclosure);
    emit_u32(s, index);
    emit_return(s, true);
    return 0;
}

/* One attempt. *at_end tells whether a failure was seen at the end of the input. */
static JSValue compile_text(const char *source, size_t length, const struct signature *as,
                            bool *at_end)
{
    JSParseState parse;
    js_parse_init(context, &parse, source, length, as->file, 1);
    parse.allow_html_comments = true;
    JSFunctionDef *program = js_new_function_def(context, NULL, true, false, as->file, 1, 1);
    if (!program)
        return JS_EXCEPTION;
    parse.cur_func = program;
    if (parse_program_of(&parse, as)) {
        *at_end = parse.token.val == TOK_EOF;
        free_token(&parse, &parse.token);
        js_free_function_def(context, program);
        return JS_EXCEPTION;
    }
    *at_end = false;
    JSValue bytecode = js_create_function(context, program);
    if (JS_IsException(bytecode))
        return JS_EXCEPTION;
    return JS_EvalFunction(context, bytecode);
}

/* Compile a body. source[length] must be NUL and writable.
 *
 * For the parser a bare `return` is closed by ';', '}' or a line end, since a function cannot end
 * otherwise. Ours can: so a body that fails at its very end is read once more with the NUL turned
 * into a line end, and if that does not help, the first error stands. */
static JSValue compile_body(char *source, size_t length, const struct signature *as)
{
    bool at_end;
    JSValue function = compile_text(source, length, as, &at_end);
    if (!JS_IsException(function) || !at_end || length < 6)
        return function;
    JSValue first_error = JS_GetException(context);
    char *longer = malloc(length + 2);
    if (longer) {
        memcpy(longer, source, length);
        memcpy(longer + length, "\n", 2);
        function = compile_text(longer, length + 1, as, &at_end);
        free(longer);
    }
    if (!JS_IsException(function)) {
        JS_FreeValue(context, first_error);
        return function;
    }
    JS_FreeValue(context, JS_GetException(context));
    return JS_Throw(context, first_error);
}

static bool called_by_function_constructor(JSContext *ctx)
{
    JSStackFrame *frame = ctx->rt->current_stack_frame;
    if (!frame || JS_VALUE_GET_TAG(frame->cur_func) != JS_TAG_OBJECT)
        return false;
    JSObject *function = JS_VALUE_GET_OBJ(frame->cur_func);
    return function->class_id == JS_CLASS_C_FUNCTION &&
           function->u.cfunc.c_function.constructor_magic == js_function_constructor;
}

/* The eval hook where constructors are allowed. A direct eval comes from a bytecode frame, an
 * indirect one from js_global_eval's, so the frame alone tells them apart. */
static JSValue compile_for_constructor(JSContext *ctx, JSValueConst this_value, const char *source,
                                       size_t length, const char *file, int line, int flags,
                                       int scope)
{
    if (!called_by_function_constructor(ctx))
        return JS_ThrowTypeError(ctx, "eval is not supported");
    return __JS_EvalInternal(ctx, this_value, source, length, file, line, flags, scope);
}

static void drop_exception(void)
{
    JS_FreeValue(context, JS_GetException(context));
}

/* The JSON of a plain object, or undefined; never throws. */
static JSValue json_or_undefined(JSValueConst value)
{
    if (!JS_IsObject(value) || JS_IsFunction(context, value))
        return JS_UNDEFINED;
    JSValue json = JS_JSONStringify(context, value, JS_UNDEFINED, JS_UNDEFINED);
    if (!JS_IsException(json))
        return json;
    drop_exception();
    return JS_UNDEFINED;
}

/* UTF-8 of a value as a reader wants it, or NULL; never throws. Free with JS_FreeCString. */
static const char *show(JSValueConst value, size_t *length)
{
    JSValue text = JS_IsSymbol(value) ? js_symbol_toString(context, value, 0, NULL)
                                      : json_or_undefined(value);
    const char *shown = NULL;
    if (!JS_IsException(text))
        shown = JS_ToCStringLen(context, length, JS_IsUndefined(text) ? safe_const(value) : text);
    if (!shown)
        drop_exception();
    JS_FreeValue(context, text);
    return shown;
}

/* UTF-8 of a property, or NULL when it is undefined, null or unreadable; never throws. */
static const char *show_property(JSValueConst object, JSAtom name, size_t *length)
{
    JSValue value = JS_GetProperty(context, object, name);
    const char *shown = NULL;
    if (JS_IsException(value))
        drop_exception();
    else if (!JS_IsUndefined(value) && !JS_IsNull(value))
        shown = show(value, length);
    JS_FreeValue(context, value);
    return shown;
}

static void count_dropped(size_t bytes)
{
    state.console_dropped += (uint32_t)bytes;
    state.console_dropped_lines++;
}

/* Make room for so many bytes in all. The old buffer stays valid until the new one is in place:
 * the host may look at any moment. */
static bool reserve_console(uint32_t bytes)
{
    static uint32_t size;
    if (bytes <= size)
        return true;
    uint32_t wanted = max_uint32(bytes, min_uint32(max_uint32(2 * size, 512), state.console_cap));
    char *larger = malloc(wanted);
    if (!larger)
        return false;
    char *smaller = (char *)(uintptr_t)state.console.address;
    memcpy(larger, smaller, state.console.length);
    state.console.address = (uint32_t)(uintptr_t)larger;
    size = wanted;
    free(smaller);
    return true;
}

/* Append one entry, or drop it whole: half a line would mislead. */
static void append_entry(uint32_t level, const DynBuf *text)
{
    uint32_t used = state.console.length;
    uint64_t end = (uint64_t)used + 4 + text->size;
    if (text->error || end > state.console_cap || !reserve_console((uint32_t)end)) {
        count_dropped(text->size);
        return;
    }
    char *entry = (char *)(uintptr_t)state.console.address + used;
    uint32_t header = (uint32_t)text->size << 3 | level;
    memcpy(entry, &header, 4);
    memcpy(entry + 4, text->buf, text->size);
    __atomic_signal_fence(__ATOMIC_SEQ_CST); /* the bytes before the length that shows them */
    state.console.length = (uint32_t)end;
}

static void put_shown(DynBuf *text, const char *shown, size_t length)
{
    dbuf_put(text, (const uint8_t *)shown, length);
    JS_FreeCString(context, shown);
}

/* An Error or a DOMException, by its class and not by its prototype. */
static bool is_error(JSValueConst value)
{
    return JS_IsError(value) || JS_GetClassID(value) == JS_CLASS_DOM_EXCEPTION;
}

/* "Name: message" and the stack below it. */
static void put_error(DynBuf *text, JSValueConst error)
{
    size_t name_length, message_length, stack_length;
    const char *name = show_property(error, JS_ATOM_name, &name_length);
    if (name)
        put_shown(text, name, name_length);
    const char *message = show_property(error, JS_ATOM_message, &message_length);
    if (message && message_length) {
        dbuf_put(text, (const uint8_t *)": ", 2);
        put_shown(text, message, message_length);
    }
    const char *stack = show_property(error, JS_ATOM_stack, &stack_length);
    while (stack && stack_length && stack[stack_length - 1] == '\n')
        stack_length--;
    if (stack && stack_length) {
        dbuf_putc(text, '\n');
        put_shown(text, stack, stack_length);
    }
}

static void put_value(DynBuf *text, JSValueConst value)
{
    size_t length;
    if (is_error(value)) {
        put_error(text, value);
        return;
    }
    const char *shown = show(value, &length);
    if (shown)
        put_shown(text, shown, length);
    else
        dbuf_putstr(text, "[unprintable]");
}

/* console.log and the rest: the level is the magic. Never throws. */
static JSValue console_method(JSContext *ctx, JSValueConst this_value, int argc,
                              JSValueConst *argv, int level)
{
    DynBuf text;
    dbuf_init(&text);
    for (int i = 0; i < argc; i++) {
        if (i)
            dbuf_putc(&text, ' ');
        put_value(&text, argv[i]);
    }
    append_entry((uint32_t)level, &text);
    dbuf_free(&text);
    return JS_UNDEFINED;
}

static const JSCFunctionListEntry console_methods[] = {
    JS_CFUNC_MAGIC_DEF("log", 0, console_method, 0),
    JS_CFUNC_MAGIC_DEF("info", 0, console_method, 1),
    JS_CFUNC_MAGIC_DEF("warn", 0, console_method, 2),
    JS_CFUNC_MAGIC_DEF("error", 0, console_method, 3),
    JS_CFUNC_MAGIC_DEF("debug", 0, console_method, 4),
};

static bool is_native_error(JSValueConst value, JSErrorEnum kind)
{
    return JS_IsError(value) && JS_VALUE_GET_OBJ(value)->shape->proto ==
                                    JS_VALUE_GET_OBJ(context->native_error_proto[kind]);
}

/* Whether an error's own message is this; it is looked at without running a getter. */
static bool has_message(JSValueConst error, const char *message)
{
    JSProperty *property;
    JSShapeProperty *shape =
        find_own_property(&property, JS_VALUE_GET_OBJ(error), JS_ATOM_message);
    if (!shape || (shape->flags & JS_PROP_TMASK) ||
        JS_VALUE_GET_TAG(property->u.value) != JS_TAG_STRING)
        return false;
    JSString *text = JS_VALUE_GET_STRING(property->u.value);
    return !text->is_wide_char && text->len == strlen(message) &&
           !memcmp(str8(text), message, text->len);
}

/* With no memory left at all the engine cannot even word its error: the message is then another
 * one or none, the error null, or nothing is thrown. */
static bool is_out_of_memory(JSValueConst thrown)
{
    if (!heap_refusals)
        return false;
    if (JS_IsNull(thrown) || JS_IsUninitialized(thrown))
        return true;
    JSProperty *property;
    if (!said_out_of_memory)
        return false;
    if (is_native_error(thrown, JS_SYNTAX_ERROR))
        return has_message(thrown, OUT_OF_MEMORY); /* while compiling a regular expression */
    return is_native_error(thrown, JS_INTERNAL_ERROR) &&
           (has_message(thrown, OUT_OF_MEMORY) || has_message(thrown, OUT_OF_MEMORY_IN_MATCH) ||
            has_message(thrown, "Invalid error message") ||
            !find_own_property(&property, JS_VALUE_GET_OBJ(thrown), JS_ATOM_message));
}

static enum status classify(JSValueConst thrown, enum status otherwise)
{
    if (is_out_of_memory(thrown))
        return STATUS_OUT_OF_MEMORY;
    if (said_stack_overflow && is_native_error(thrown, JS_RANGE_ERROR) &&
        has_message(thrown, STACK_OVERFLOW))
        return STATUS_STACK_OVERFLOW;
    return otherwise;
}

static void set_shown(volatile struct text *field, const char *shown, size_t length)
{
    if (shown) /* kept: the instance ends with the report */
        set_text(field, shown, length);
}

static void set_error_fields(JSValueConst thrown)
{
    size_t length;
    const char *shown;
    if (!is_error(thrown)) {
        shown = show(thrown, &length);
        set_shown(&state.error_message, shown, length);
        if (!shown)
            set_text(&state.error_message, "a value that cannot be shown", 28);
        return;
    }
    shown = show_property(thrown, JS_ATOM_name, &length);
    set_shown(&state.error_name, shown, length);
    shown = show_property(thrown, JS_ATOM_message, &length);
    set_shown(&state.error_message, shown, length);
    shown = show_property(thrown, JS_ATOM_stack, &length);
    set_shown(&state.error_stack, shown, length);
}

/* Report the pending exception. The status comes first, for getters may trap. */
static uint32_t fail(enum status otherwise)
{
    JSValue thrown = JS_GetException(context);
    enum status status = classify(thrown, otherwise);
    state.status = status;
    if (heap_refusals)
        JS_RunGC(runtime); /* reading the fields takes memory */
    if (status != STATUS_OUT_OF_MEMORY || !JS_IsNull(thrown))
        set_error_fields(thrown);
    if (status == STATUS_OUT_OF_MEMORY)
        set_out_of_memory();
    JS_FreeValue(context, thrown);
    return status;
}

static uint32_t fail_with(enum status status, const char *message)
{
    state.status = status;
    set_text(&state.error_name, "Error", 5);
    set_text(&state.error_message, message, strlen(message));
    return status;
}

static uint32_t succeed(const char *json, size_t length)
{
    set_text(&state.output, json, length);
    state.status = STATUS_SUCCESS;
    return STATUS_SUCCESS;
}

static JSValue require(JSContext *ctx, JSValueConst this_value, int argc, JSValueConst *argv)
{
    size_t length;
    JSAtom wanted = JS_ValueToAtom(ctx, argv[0]);
    if (wanted == JS_ATOM_NULL)
        return JS_EXCEPTION;
    JS_FreeAtom(ctx, wanted); /* an atom that a module holds keeps its number */
    for (int i = 0; i < module_count; i++)
        if (modules[i].name == wanted)
            return js_dup(modules[i].exports);
    const char *name = show(argv[0], &length);
    JS_ThrowPlainError(ctx, "module '%s' is not available", name ? name : "?");
    JS_FreeCString(ctx, name);
    return JS_EXCEPTION;
}

static JSValue new_require(void)
{
    return JS_NewCFunction(context, require, "require", 1);
}

static int remember_module(const char *name, JSValue exports)
{
    JSAtom atom = JS_NewAtom(context, name);
    if (atom == JS_ATOM_NULL ||
        js_resize_array(context, (void **)&modules, sizeof(*modules), &module_size,
                        module_count + 1)) {
        JS_FreeAtom(context, atom);
        JS_FreeValue(context, exports);
        return -1;
    }
    modules[module_count++] = (struct module){atom, exports};
    return 0;
}

/* Call a compiled module as CommonJS does, and return what module.exports holds afterwards. */
static JSValue evaluate_module(JSValueConst function)
{
    JSValue exports = JS_NewObject(context), module = JS_NewObject(context);
    JSValue require = new_require(), result = JS_EXCEPTION;
    JSValueConst global = context->global_obj;
    if (!JS_IsException(exports) && !JS_IsException(module) && !JS_IsException(require) &&
        JS_DefinePropertyValueStr(context, module, "exports", js_dup(exports), JS_PROP_C_W_E) >= 0) {
        JSValueConst arguments[] = {module, exports, require, global, global};
        result = JS_Call(context, function, exports, countof(arguments), arguments);
    }
    if (!JS_IsException(result)) {
        JS_FreeValue(context, result);
        result = JS_GetPropertyStr(context, module, "exports");
    }
    JS_FreeValue(context, require);
    JS_FreeValue(context, module);
    JS_FreeValue(context, exports);
    return result;
}

/* What must wait for the host's settings; at the first beddel_module or beddel_run. False, with an
 * exception pending, when there is no memory for it. */
/* Rejected promises that nobody has asked about, oldest first. One leaves when somebody does, which
 * is mostly at once, so the search starts at the end. */
static struct {
    JSValue *promises;
    uint32_t count, size;
    bool incomplete; /* no memory to note one */
} unhandled;

static void note_rejection(JSContext *ctx, JSValueConst promise, JSValueConst reason, bool handled,
                           void *opaque)
{
    if (!handled) {
        if (unhandled.count == unhandled.size) {
            uint32_t size = unhandled.size ? unhandled.size * 2 : 8;
            JSValue *promises = realloc(unhandled.promises, size * sizeof(*promises));
            if (!promises) {
                unhandled.incomplete = true;
                return;
            }
            unhandled.promises = promises;
            unhandled.size = size;
        }
        unhandled.promises[unhandled.count++] = JS_DupValue(ctx, promise);
        return;
    }
    for (uint32_t i = unhandled.count; i-- > 0;) {
        if (JS_VALUE_GET_OBJ(unhandled.promises[i]) != JS_VALUE_GET_OBJ(promise))
            continue;
        JSValue gone = unhandled.promises[i];
        unhandled.count--;
        memmove(&unhandled.promises[i], &unhandled.promises[i + 1],
                (unhandled.count - i) * sizeof(gone));
        JS_FreeValue(ctx, gone);
        return;
    }
}

static bool start(void)
{
    static bool started;
    state.status = STATUS_UNFINISHED;
    JS_UpdateStackTop(runtime);
    if (started)
        return true;
    started = true;
    /* splitmix64: near seeds give unlike streams; the engine's generator must not start at 0 */
    uint64_t mixed = state.seed + 0x9e3779b97f4a7c15;
    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111eb;
    mixed ^= mixed >> 31;
    context->random_state = mixed ? mixed : 1;
    if (state.flags & FLAG_FUNCTION_CONSTRUCTORS)
        context->eval_internal = compile_for_constructor;
    JS_SetHostPromiseRejectionTracker(runtime, note_rejection, NULL);
    JS_AddPerformance(context); /* here, not in beddel_init: it reads the clock */
    return !JS_HasException(context);
}

EXPORT(beddel_state) volatile struct state *beddel_state(void)
{
    return &state;
}

/* A block for one text: n bytes and a NUL, which the host leaves alone. */
EXPORT(beddel_alloc) char *beddel_alloc(uint32_t n)
{
    char *text = n == UINT32_MAX ? NULL : malloc((size_t)n + 1); /* n + 1 must not wrap */
    if (text)
        text[n] = '\0';
    return text;
}

/* Build the engine. Run once, at build time; the shipped module starts from what this leaves. */
EXPORT(beddel_init) void beddel_init(void)
{
    heap_figures = (struct heap_figures *)&state.heap;
    state.status = STATUS_UNFINISHED;
    memory_reserve = malloc(MEMORY_RESERVE_BYTES);
    runtime = JS_NewRuntime();
    context = runtime ? JS_NewContextRaw(runtime) : NULL;
    /* No JS_AddIntrinsicEval: it would set the eval hook. */
    if (!context || JS_AddIntrinsicBaseObjects(context) || JS_AddIntrinsicDate(context) ||
        JS_AddIntrinsicRegExp(context) || JS_AddIntrinsicJSON(context) ||
        JS_AddIntrinsicProxy(context) || JS_AddIntrinsicMapSet(context) ||
        JS_AddIntrinsicTypedArrays(context) || JS_AddIntrinsicPromise(context) ||
        JS_AddIntrinsicWeakRef(context) || JS_AddIntrinsicAToB(context))
        __builtin_trap();
    JS_SetMaxStackSize(runtime, STACK_BYTES - STACK_RESERVE_BYTES);
    JSValue console = JS_NewObject(context);
    JS_SetPropertyFunctionList(context, console, console_methods, countof(console_methods));
    JS_DefinePropertyValueStr(context, context->global_obj, "console", console,
                              JS_PROP_WRITABLE | JS_PROP_CONFIGURABLE);
    JS_RunGC(runtime);
}

/* Compile and evaluate a CommonJS or UMD module. Takes both blocks. */
EXPORT(beddel_module)
uint32_t beddel_module(char *name, uint32_t name_length, char *source, uint32_t source_length)
{
    static const char *const parameters[] = {"module", "exports", "require", "self", "global"};
    const struct signature as = {name, name, parameters, countof(parameters), false};
    if (!start())
        return fail(STATUS_ERROR);
    JSValue function = compile_body(source, source_length, &as);
    free(source);
    if (JS_IsException(function))
        return fail(STATUS_SYNTAX_ERROR);
    JSValue exports = evaluate_module(function);
    JS_FreeValue(context, function);
    if (JS_IsException(exports) || remember_module(name, exports))
        return fail(STATUS_ERROR);
    free(name);
    state.status = STATUS_UNFINISHED; /* of the run to come */
    return STATUS_SUCCESS;
}

static uint32_t report_value(JSValueConst value)
{
    if (JS_IsUndefined(value))
        return succeed("null", 4);
    said_not_json = false;
    JSValue json = JS_JSONStringify(context, value, JS_UNDEFINED, JS_UNDEFINED);
    if (JS_IsException(json))
        return fail(said_not_json ? STATUS_OUTPUT_NOT_JSON : STATUS_ERROR);
    if (JS_IsUndefined(json))
        return fail_with(STATUS_OUTPUT_NOT_JSON, JS_IsSymbol(value) ? "a symbol has no JSON form"
                         : JS_IsFunction(context, value) ? "a function has no JSON form"
                                                         : "its toJSON gave no JSON value");
    size_t length;
    const char *text = JS_ToCStringLen(context, &length, json);
    return text ? succeed(text, length) : fail(STATUS_ERROR);
}

/* Run every job in the queue, then report how the job's own promise stands. */
static bool job_threw;

/* Run every queued job, and set `job_threw`. Gives what the first one that threw has thrown, or JS_UNINITIALIZED. */
static JSValue run_jobs(void)
{
    JSContext *ran_in;
    JSValue first = JS_UNINITIALIZED;
    bool found = false;
    int more;
    while ((more = JS_ExecutePendingJob(runtime, &ran_in)) != 0) {
        if (more > 0)
            continue;
        JSValue thrown = JS_GetException(context);
        if (found) {
            JS_FreeValue(context, thrown);
        } else {
            first = thrown;
            found = true;
        }
    }
    job_threw = found;
    return first;
}

static uint32_t settle(JSValueConst promise)
{
    JSValue thrown = run_jobs();
    switch (JS_PromiseState(context, promise)) {
    case JS_PROMISE_FULFILLED:
        if (job_threw) {
            JS_Throw(context, thrown);
            return fail(STATUS_UNHANDLED);
        }
        if (unhandled.count) {
            JS_Throw(context, JS_PromiseResult(context, unhandled.promises[0]));
            return fail(STATUS_UNHANDLED);
        }
        if (unhandled.incomplete) {
            set_out_of_memory();
            return STATUS_OUT_OF_MEMORY;
        }
        return report_value(JS_PromiseResult(context, promise));
    case JS_PROMISE_REJECTED:
        JS_Throw(context, JS_PromiseResult(context, promise));
        return fail(STATUS_ERROR);
    default:
        /* the engine may have had no memory to run a reaction */
        if (job_threw && is_out_of_memory(thrown)) {
            set_out_of_memory();
            return STATUS_OUT_OF_MEMORY;
        }
        return fail_with(STATUS_NEVER_SETTLES, "the promise never settles");
    }
}

/* Run the job. Takes both blocks; input may be 0 with length 0, for null. Once per instance. */
EXPORT(beddel_run)
uint32_t beddel_run(char *source, uint32_t source_length, char *input, uint32_t input_length)
{
    static const char *const parameters[] = {"input", "require"};
    const struct signature as = {"job.js", "job", parameters, module_count ? 2 : 1, true};
    static bool has_run;
    if (has_run)
        __builtin_trap();
    has_run = true;
    if (!start())
        return fail(STATUS_ERROR);
    JSValue function = compile_body(source, source_length, &as);
    free(source);
    if (JS_IsException(function))
        return fail(STATUS_SYNTAX_ERROR);
    JSValue arguments[2] = {JS_NULL, JS_UNDEFINED};
    if (input_length)
        arguments[0] = JS_ParseJSON(context, input, input_length, "input.json");
    free(input);
    if (JS_IsException(arguments[0]))
        return fail(STATUS_INPUT_NOT_JSON);
    if (module_count)
        arguments[1] = new_require();
    if (JS_IsException(arguments[1]))
        return fail(STATUS_ERROR);
    JSValue promise = JS_Call(context, function, JS_UNDEFINED, as.parameter_count, vc(arguments));
    JS_FreeValue(context, arguments[0]);
    JS_FreeValue(context, arguments[1]);
    JS_FreeValue(context, function);
    if (JS_IsException(promise))
        return fail(STATUS_ERROR);
    return settle(promise);
}
