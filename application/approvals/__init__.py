"""Approvals: which calls need one, deciding them, and the policies that say so.

asked      what an approval asks about, in words
links      the links of notices
notices    what a notice says
needs      what the rules say of a call that is requested
deciding   the word of a person, checked anew where it changes the arguments
policies   the rules of a tenant, as data
"""
