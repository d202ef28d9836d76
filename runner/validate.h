/* validate.h - a recipe judged whole: its own words, its tasks' YAML, its model's YAML. Needs neither data nor base on disk, nor
 * the device: a recipe may be checked where it will not run. */
#ifndef RUNNER_VALIDATE_H
#define RUNNER_VALIDATE_H

#include "runner/command.h"
#include "runner/recipe.h"

/* Reads word 0 of the call as a recipe (MX_E_USAGE when it is a sweep) and the words after it as overrides; every problem goes into call->problems.
 * MX_E_RECIPE when there was one. */
MX_MUST_CHECK mx_code mx_validate(const mx_call *call, mx_recipe **ret, mx_status *st);

/* The part of it after reading: tasks and base's name of a bound recipe, whose own words may have been wrong. */
MX_MUST_CHECK mx_code mx_validate_recipe(const mx_recipe *r, mx_arena *arena, mx_problems *problems, mx_status *st);

#endif
