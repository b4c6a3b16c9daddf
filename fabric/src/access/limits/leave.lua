-- Takes a request that waits no longer out of the line. A turn that it had is the next one's.
leave_line(id)
if line_length() > 0 then call_next() end
return 1
