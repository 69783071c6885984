"""How stable a long video is: how like each chunk is to the anchors and the first chunk, in numbers and as a plot."""
