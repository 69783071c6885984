"""Gloria: consistent character video from content anchors, without any host application."""
