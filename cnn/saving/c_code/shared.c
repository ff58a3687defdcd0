/* A window that slides over an image, for convolution and pooling. */
typedef struct {
    int channels, height, width;             /* of the input */
    int out_channels, out_height, out_width; /* of the output */
    int kernel_height, kernel_width;
    int stride_down, stride_right;
    int top, left; /* the padding */
    int dilation_down, dilation_right;
    int groups;
    int biases; /* for each output channel: 0, 1, or one for each position */
} window;

/* Positions from begin up to, but not including, end. */
typedef struct {
    int begin, end;
} span;

/* The taps of a kernel that lie on an axis of the input if the first one lies at start. */
static span inside(int start, int taps, int dilation, int length)
{
    span found = {0, taps};
    if (start < 0) {
        found.begin = (dilation - 1 - start) / dilation;
    }
    if (start + (taps - 1) * dilation >= length) {
        found.end = start < length ? (length - start + dilation - 1) / dilation : 0;
    }
    return found;
}

/* The input's position for one of the output's and a tap of a transposed convolution; -1: there is none. */
static int source(int position, int tap, int padding, int stride, int dilation, int length)
{
    const int place = position + padding - tap * dilation;
    return place >= 0 && place % stride == 0 && place / stride < length ? place / stride : -1;
}
