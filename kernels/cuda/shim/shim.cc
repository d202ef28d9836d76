#include "kernels/cuda/shim/shim.h"
