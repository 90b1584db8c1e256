// A small Lisp: something of a few hundred lines for the compiler to optimise.
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { NUMBER, SYMBOL, PAIR, CLOSURE, BUILT_IN };

struct value {
    enum kind kind;
    union {
        long number;
        const char *name;
        struct { struct value *first, *rest; } pair;
        struct { struct value *parameters, *body, *scope; } closure;
        struct value *(*built_in)(struct value *arguments);
    };
};

static struct value *new_value(enum kind kind) {
    static struct value *chunk;
    static size_t left;
    if (left == 0) {
        left = 4096;
        chunk = calloc(left, sizeof *chunk);
        if (!chunk)
            exit(2);
    }
    left--;
    chunk->kind = kind;
    return chunk++;
}

static struct value *number(long n) {
    struct value *value = new_value(NUMBER);
    value->number = n;
    return value;
}

static struct value *cons(struct value *first, struct value *rest) {
    struct value *value = new_value(PAIR);
    value->pair.first = first;
    value->pair.rest = rest;
    return value;
}

static struct value *first(struct value *list) { return list->pair.first; }
static struct value *rest(struct value *list) { return list->pair.rest; }

static struct value *symbol(const char *text, size_t length) {
    static struct value *known[256];
    unsigned hash = 5381;
    for (size_t i = 0; i < length; i++)
        hash = hash * 33 + (unsigned char)text[i];
    for (unsigned slot = hash % 256;; slot = (slot + 1) % 256) {
        if (!known[slot]) {
            char *name = calloc(1, length + 1);
            memcpy(name, text, length);
            known[slot] = new_value(SYMBOL);
            known[slot]->name = name;
            return known[slot];
        }
        if (strlen(known[slot]->name) == length && !memcmp(known[slot]->name, text, length))
            return known[slot];
    }
}

static const char *source;

static void skip_space(void) {
    while (isspace((unsigned char)*source))
        source++;
}

static struct value *read_value(void);

static struct value *read_list(void) {
    skip_space();
    if (*source == ')') {
        source++;
        return NULL;
    }
    struct value *head = read_value();
    return cons(head, read_list());
}

static struct value *read_value(void) {
    skip_space();
    if (*source == '(') {
        source++;
        return read_list();
    }
    const char *start = source;
    while (*source && !isspace((unsigned char)*source) && *source != '(' && *source != ')')
        source++;
    if (isdigit((unsigned char)*start))
        return number(strtol(start, NULL, 10));
    return symbol(start, (size_t)(source - start));
}

static struct value *truth(int condition) { return condition ? symbol("t", 1) : NULL; }

static struct value *add(struct value *arguments) {
    long sum = 0;
    for (; arguments; arguments = rest(arguments))
        sum += first(arguments)->number;
    return number(sum);
}

static struct value *subtract(struct value *arguments) {
    long difference = first(arguments)->number;
    for (arguments = rest(arguments); arguments; arguments = rest(arguments))
        difference -= first(arguments)->number;
    return number(difference);
}

static struct value *less(struct value *arguments) {
    return truth(first(arguments)->number < first(rest(arguments))->number);
}

static struct value *scope;

static void define(const char *name, struct value *value) {
    scope = cons(cons(symbol(name, strlen(name)), value), scope);
}

static struct value *look_up(struct value *name, struct value *where) {
    for (; where; where = rest(where))
        if (first(first(where)) == name)
            return rest(first(where));
    for (where = scope; where; where = rest(where))
        if (first(first(where)) == name)
            return rest(first(where));
    fprintf(stderr, "lisp: %s is not defined\n", name->name);
    exit(1);
}

static struct value *evaluate(struct value *expression, struct value *where);

static struct value *evaluate_all(struct value *list, struct value *where) {
    if (!list)
        return NULL;
    struct value *head = evaluate(first(list), where);
    return cons(head, evaluate_all(rest(list), where));
}

static struct value *apply(struct value *callee, struct value *arguments) {
    if (callee->kind == BUILT_IN)
        return callee->built_in(arguments);
    struct value *where = callee->closure.scope;
    for (struct value *name = callee->closure.parameters; name; name = rest(name)) {
        where = cons(cons(first(name), first(arguments)), where);
        arguments = rest(arguments);
    }
    return evaluate(callee->closure.body, where);
}

static struct value *evaluate(struct value *expression, struct value *where) {
    if (!expression || expression->kind == NUMBER)
        return expression;
    if (expression->kind == SYMBOL)
        return look_up(expression, where);
    struct value *head = first(expression), *tail = rest(expression);
    if (head == symbol("if", 2)) {
        struct value *chosen = rest(tail);
        if (!evaluate(first(tail), where))
            chosen = rest(chosen);
        return evaluate(first(chosen), where);
    }
    if (head == symbol("lambda", 6)) {
        struct value *closure = new_value(CLOSURE);
        closure->closure.parameters = first(tail);
        closure->closure.body = first(rest(tail));
        closure->closure.scope = where;
        return closure;
    }
    if (head == symbol("define", 6)) {
        define(first(tail)->name, evaluate(first(rest(tail)), where));
        return NULL;
    }
    struct value *callee = evaluate(head, where);
    return apply(callee, evaluate_all(tail, where));
}

static void define_built_in(const char *name, struct value *(*function)(struct value *)) {
    struct value *value = new_value(BUILT_IN);
    value->built_in = function;
    define(name, value);
}

int main(void) {
    define_built_in("+", add);
    define_built_in("-", subtract);
    define_built_in("<", less);
    source = "(define fib (lambda (n) (if (< n 2) n (+ (fib (- n 1)) (fib (- n 2))))))";
    evaluate(read_value(), NULL);
    source = "(fib 20)";
    printf("%ld\n", evaluate(read_value(), NULL)->number);
    return 0;
}
